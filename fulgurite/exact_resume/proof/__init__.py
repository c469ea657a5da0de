"""Prove exact resume: train straight through and killed, then compare everything bit by bit."""
