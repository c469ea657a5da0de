"""The Optuna study of a search: storage, sampler replay, pruning callback."""
