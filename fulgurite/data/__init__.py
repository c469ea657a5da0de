"""For data modules: cross-validation folds, batch size per rank, verified IDX files."""
