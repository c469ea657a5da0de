"""Record what produced a run: git state, imported code, package versions, config hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.files import sha256_of
from fulgurite.core.redact import mask_text
from fulgurite.runs.new_files import new_files_patch

MAX_PATCH_BYTES = 1_000_000
MAX_SHOWN = 5  # changed files in a warning
PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy")

# The checkout's own settings may name a program for each of these.
GIT_OPTIONS = ("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "--no-optional-locks")
# Keys that change where a run writes and how it reports, not its results.
IRRELEVANT = (
    *("paths", "extras", "resilience", "distributed", "logger", "tags", "task_name"),
    *("ckpt_path", "ckpt_sha256", "resume", "sweep", "trust", "trust_env", "validate", "hydra"),
)


def halved_from(cfg: DictConfig) -> DictConfig:
    """Return what a run whose batch size was halved keeps of the original config; empty for others."""
    group = cfg.get("callbacks")  # a list in a wrong config, which the checks refuse later
    found = OmegaConf.select(group, "oom_backoff.halved_from") if isinstance(group, DictConfig) else None
    return found or DictConfig({})


def config_hash(cfg: DictConfig) -> str:
    """Return the sha256 of the part of the config that determines the results, interpolations unresolved.

    A run whose batch size was halved after running out of memory keeps the hash of the original config.
    """
    if original := halved_from(cfg).get("config_hash"):
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
    done = [_git(root, *call) for call in (("rev-parse", "HEAD"), ("status", "--porcelain"))]
    if any(call.returncode for call in done):
        return None
    return {"commit": done[0].stdout.decode().strip(), "dirty": bool(done[1].stdout.strip())}


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git without what the environment or the checkout's settings would have it start; code 127 without git."""
    git = shutil.which("git")
    if git is None:
        return subprocess.CompletedProcess(["git"], 127, b"", b"")
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = [git, *GIT_OPTIONS, *arguments]
    return subprocess.run(command, cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def code_patch(root: Path) -> str:
    """Return the uncommitted changes at `root`, without secrets; empty without git or without a commit.

    The changes of tracked files are cut at `MAX_PATCH_BYTES`. New files that git does not ignore follow.
    """
    diff = _git(root, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    if diff.returncode:
        return ""
    patch = diff.stdout
    text = mask_text(patch[:MAX_PATCH_BYTES].decode(errors="replace"))
    if len(patch) > MAX_PATCH_BYTES:
        text = f"{text}\n... cut at {MAX_PATCH_BYTES} of {len(patch)} bytes\n"
    names = os.fsdecode(_git(root, "ls-files", "--others", "--exclude-standard", "-z").stdout).split("\0")
    if not (new := [name for name in names if name]):
        return text
    prefix = os.fsdecode(_git(root, "rev-parse", "--show-prefix").stdout).removesuffix("\n")
    return text + mask_text(new_files_patch(root, new, prefix))


def imported_code(root: Path) -> dict[str, str]:
    """Return a hash of each module below `root` that this process has imported, by its path.

    Installed packages are left out. This library is one entry: what it imports depends on the start.
    """
    library = Path(__file__).resolve().parents[1]
    hashes: dict[str, str] = {}
    files = (getattr(module, "__dict__", {}).get("__file__") for module in [*sys.modules.values()])
    for path in sorted({Path(file) for file in files if file}):
        inside = path.is_relative_to(root) and not path.is_relative_to(library)
        if inside and path.suffix == ".py" and "site-packages" not in path.parts:
            with suppress(OSError):  # removed since
                hashes[path.relative_to(root).as_posix()] = sha256_of(path)[:16]
    if library.is_relative_to(root) and "site-packages" not in library.parts:
        lines = [f"{path} {sha256_of(path)}" for path in sorted(library.rglob("*.py"))]
        hashes[library.relative_to(root).as_posix()] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return hashes


def code_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the commits and imported files that differ between two starts, from their run.json."""
    old, new = before["git"], now["git"]
    commits = [f"commit {_describe_commit(old)} -> {_describe_commit(new)}"] if old != new else []
    hashes = before.get("code") or {}
    files = [name for name, value in now["code"].items() if hashes.get(name, value) != value]
    return [*commits, *files[:MAX_SHOWN], *(["..."] if len(files) > MAX_SHOWN else [])]


def _describe_commit(git: Mapping[str, Any] | None) -> str:
    return f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git else "(unknown)"
