"""What the terminal shows while a run trains: colors of log messages, and the status line."""
