"""What input from elsewhere may do: checkpoints, studies, pickles."""
