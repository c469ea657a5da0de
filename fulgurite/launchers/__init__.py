"""Where the jobs of a sweep run on one machine: slots, local process pool, progress, the job itself."""
