"""File and folder names inside a run directory."""

from __future__ import annotations

RECORD, RESULTS, METRICS, LOCK_FILE = "run.json", "results.json", "metrics.csv", ".owner"
OVERRIDES, CONFIG = ".hydra/overrides.yaml", ".hydra/config.yaml"
STAGED_CONFIG_DIR = ".hydra/next"  # Hydra writes the config here until the start is accepted

CONTINUE, HOTSTART = "continue", "hotstart"  # values of `resume.mode`
