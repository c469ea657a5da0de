"""File and folder names inside a run directory."""

from __future__ import annotations

RECORD, RESULTS, METRICS, LOCK_FILE = "run.json", "results.json", "metrics.csv", ".owner"


STAGED_CONFIG_DIR = ".hydra/next"  # where Hydra writes the config of a start that may yet be refused


CONTINUE, HOTSTART, WEIGHTS = MODES = ("continue", "hotstart", "weights")
