"""Record what produced a run: git state, package versions, config hash."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy")

# Keys that change where a run writes and how it reports, not its results.
IRRELEVANT = (
    *("paths", "extras", "resilience", "distributed", "logger", "tags", "task_name"),
    *("ckpt_path", "ckpt_sha256", "resume", "sweep", "hydra"),
)


def config_hash(cfg: DictConfig) -> str:
    """Return the sha256 of the part of the config that determines the results, interpolations unresolved.

    A run whose batch size was halved after running out of memory keeps the hash of the original config.
    """
    if original := OmegaConf.select(cfg, "callbacks.oom_backoff.halved_from.config_hash"):
        return str(original)
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    relevant = {key: value for key, value in plain.items() if key not in IRRELEVANT}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that determine the results."""
    from importlib import metadata  # slow to import, and not needed to reject a typo

    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in PACKAGES}}


def git_state(root: Path) -> dict[str, Any] | None:
    """Return commit and dirty flag of the checkout at `root`; None without git or without a commit."""
    git = shutil.which("git")
    if git is None:
        return None
    calls = (("rev-parse", "HEAD"), ("status", "--porcelain"))
    done = [subprocess.run([git, *call], cwd=root, capture_output=True, text=True, check=False) for call in calls]
    if any(call.returncode for call in done):
        return None
    return {"commit": done[0].stdout.strip(), "dirty": bool(done[1].stdout.strip())}
