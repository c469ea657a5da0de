"""The Optuna study as a trial sees it: storage, sampler and pruner, pruning callback."""
