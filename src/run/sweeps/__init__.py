"""`-m` with several values: a grid of jobs, checked whole before the first, kept in a ledger, and able to go on."""
