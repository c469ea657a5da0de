"""Where each value of a config comes from and who reads it; JSON schemas of the config groups for editors."""
