"""`resume=`: a run that stopped goes on in its own directory, or gives its weights to a new one."""
