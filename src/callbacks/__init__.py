"""Lightning callbacks of this project, one per file."""
