"""What hooks change of the structure of a run: its modules and hooks."""
