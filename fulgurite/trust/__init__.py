"""What input from elsewhere may do, and what may leave the process: checkpoints, studies, pickles, secrets."""
