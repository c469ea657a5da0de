"""Each place that sets a key of a config: the files in the order of the defaults list, then the overrides."""
