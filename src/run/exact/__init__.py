"""A run that is killed and started again ends as if it had never stopped, to the last bit."""
