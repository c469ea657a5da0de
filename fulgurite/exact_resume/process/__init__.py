"""What user code changes of the process: environment variables, and settings of torch and NumPy."""
