"""Grid sweeps: all jobs are validated before the first starts, dispatched to any launcher, and resumable."""
