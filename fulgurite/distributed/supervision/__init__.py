"""Find the rank that failed, report it, and terminate the ranks blocked on it."""
