"""The Optuna study of a search as a trial sees it: storage, sampler replay and the pruning callback."""
