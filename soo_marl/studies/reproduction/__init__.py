"""All studies of the paper in all games, as one."""
