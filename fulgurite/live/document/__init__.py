"""Live documents without a training: keys, sources, files in the run directory, command line; imports no torch."""
