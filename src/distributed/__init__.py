"""Many processes: how they are placed, whether they can work together, and how fast; no Lightning, no config."""
