"""A search with Optuna: its space and settings read and checked, a trial a job, each told in the study and the ledger."""
