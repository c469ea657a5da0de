"""Hyperparameter search with Optuna: settings, space, preflight, trials, loop."""
