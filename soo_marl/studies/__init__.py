"""Studies: what scripts and the command line run, and what they leave on disk."""
