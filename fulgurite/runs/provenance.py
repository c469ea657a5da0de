"""Record what produced a run: git state, package versions, config hash."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.rank_logging import RankedLogger

if TYPE_CHECKING:
    pass

log = RankedLogger(__name__)

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy")


# Keys that change where a run writes and who hears of it, not what it computes.
IRRELEVANT = (
    *("paths", "extras", "resilience", "distributed", "logger", "tags", "task_name"),
    *("ckpt_path", "ckpt_sha256", "resume", "sweep", "hydra"),
)


def config_hash(cfg: DictConfig) -> str:
    """Return the sha256 of everything in the config that decides the result, interpolations unresolved.

    A run whose batches were halved when memory ran out keeps the hash of what it was asked for.
    """
    if asked := OmegaConf.select(cfg, "callbacks.oom_backoff.halved_from.config_hash"):
        return str(asked)
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    relevant = {key: value for key, value in plain.items() if key not in IRRELEVANT}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    from importlib import metadata  # slow to import, and not needed to refuse a typo

    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in PACKAGES}}


def git_state(root: Path) -> dict[str, Any] | None:
    """Return commit and dirty flag of the checkout at `root`; None where there is no git or no commit."""
    git = shutil.which("git")
    if git is None:
        return None
    calls = (("rev-parse", "HEAD"), ("status", "--porcelain"))
    done = [subprocess.run([git, *call], cwd=root, capture_output=True, text=True, check=False) for call in calls]
    if any(call.returncode for call in done):
        return None
    return {"commit": done[0].stdout.strip(), "dirty": bool(done[1].stdout.strip())}
