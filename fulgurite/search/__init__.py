"""Hyperparameter search with Optuna: settings, search space, preflight, trials, search loop."""
