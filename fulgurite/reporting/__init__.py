"""Tables and reports of runs and sweeps."""
