"""Read the signature of a class or function from its source, without importing it: known, missing or unknown."""
