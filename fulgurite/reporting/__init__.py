"""Tables and reports over finished runs and sweeps."""
