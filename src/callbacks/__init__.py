"""What watches a run: one Lightning callback a file."""
