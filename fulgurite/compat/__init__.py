"""Private and version-dependent names of Hydra and Lightning, each used from here only."""
