"""File and folder names inside a run directory, and the key that a checkpoint has for its files."""

from __future__ import annotations

RECORD, RESULTS, METRICS, LOCK_FILE = "run.json", "results.json", "metrics.csv", ".owner"
CODE_PATCH = "code.patch"  # uncommitted changes and new files at the first start
OVERRIDES, CONFIG = ".hydra/overrides.yaml", ".hydra/config.yaml"
CONSOLE_LOG = "console.log"  # stdout and stderr of a job of a launcher with its own processes
# of live control: edits that a user writes, edits that were applied, the present state
LIVE_EDITS, LIVE_HISTORY, LIVE_STATUS = "live.yaml", "live.jsonl", "live.status.yaml"
STAGED_CONFIG_DIR = ".hydra/next"  # Hydra writes the config here until the start is accepted

CONTINUE, HOTSTART = "continue", "hotstart"  # values of `resume.mode`

# key of a checkpoint: {rows: in metrics.csv at the save, step: of the loggers' next values}
LOGGED = "fulgurite_logged"
