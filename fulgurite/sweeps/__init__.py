"""Grid sweeps: jobs validated before the first starts, dispatched to any launcher, resumable."""
