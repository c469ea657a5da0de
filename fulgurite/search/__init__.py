"""Hyperparameter search with Optuna: settings, search space, preflight checks, trials and the search loop."""
