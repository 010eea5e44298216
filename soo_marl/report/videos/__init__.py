"""Episodes as films and animations."""
