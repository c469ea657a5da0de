"""The parts that a config names: of which kind each must be, and what their arguments are."""
