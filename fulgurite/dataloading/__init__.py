"""Timeouts and readable errors for DataLoader workers."""
