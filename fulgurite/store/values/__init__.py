"""Values of a config: merged by the order of their sources, converted to the types that a program reads."""
