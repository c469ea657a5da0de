"""Turn what Hydra refuses into plain text: the syntax of overrides, defaults lists, keys of other templates."""
