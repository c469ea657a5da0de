"""Signals: finish the step, save, exit with the right code, on all ranks together."""
