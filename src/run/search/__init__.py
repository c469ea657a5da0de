"""A search with Optuna: its space and settings read and checked, a job a trial, each told in study and ledger."""
