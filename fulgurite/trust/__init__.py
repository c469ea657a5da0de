"""What input from elsewhere may do, and what may leave the process: configs, checkpoints, studies, pickles, secrets."""
