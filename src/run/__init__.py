"""One run, from its config to what it leaves behind."""
