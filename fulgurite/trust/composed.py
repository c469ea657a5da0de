"""Refuse names, folders and numbers of a composed config that no run can have, before anything is written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from string import Formatter
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.core.errors import LONGEST_NAME, ConfigError, printable
from fulgurite.core.redact import MASK, hide_secrets, holds_secret
from fulgurite.trust.secrets import register_secrets
from fulgurite.trust.walk import last_part, leaves, look_up

LONGEST_TASK = 200  # bytes; its log of a rank has a longer name
LONGEST_CHECKPOINT = 220  # bytes; its temporary file has a longer name
MOST_STEPS = 2**62
MOST_WORKERS = 1000  # beyond, starting them takes longer than any batch
REMEDY = "Set a folder that you may write to."
MOST_SECONDS = 10**8  # three years; torch's timeouts hold no more than 10^10
FOLDERS = ("paths.log_dir", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
NAMING = {"callbacks": ("dirpath", "filename"), "logger": ("save_dir", "name", "version", "sub_dir")}
_SHOWN = 40


def check_composed(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Hide the secrets of a composed config, and refuse names that would lead files elsewhere.

    Values that only a run can resolve are not checked.

    Args:
        cfg: The config with its `hydra` part; nothing in it is changed.
        overrides: The overrides that it was composed from.

    Raises:
        ConfigError: All findings, one line each.
    """
    register_secrets(cfg, overrides)
    if findings := name_faults(cfg):
        raise ConfigError(findings)


def name_faults(cfg: DictConfig) -> list[str]:
    """Return a line for each name, folder and number of a composed config that no run can have."""
    values = _Values(cfg)
    return [*_with_secrets(values)] or [*_of_names(values), *_of_numbers(values), *_of_checkpoints(values)]


class _Values:
    """The resolved values of a config, each of which is looked up once, and resolved only if it has to be."""

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg, self._found = cfg, dict[str, Any]()
        self._plain: Any = OmegaConf.to_container(cfg, resolve=False)

    def __getitem__(self, key: str) -> Any:
        """Return the value at a key; None for one that is missing, or that only a run can resolve."""
        if key not in self._found:
            written, holder = look_up(self._plain, key), look_up(self._plain, key.rpartition(".")[0])
            is_literal = isinstance(holder, dict) and not isinstance(written, (dict, list)) and "${" not in str(written)
            self._found[key] = (None if written == "???" else written) if is_literal else _value(self._cfg, key)
        return self._found[key]

    def node(self, key: str) -> dict[str, Any]:
        """Return the dictionary at a key as it is written; an empty one for another value."""
        written = look_up(self._plain, key)
        found = written if isinstance(written, dict) else self[key]
        return found if isinstance(found, dict) else {}


def _with_secrets(values: _Values) -> Iterator[str]:
    """Yield the names of folders and files that would show a secret."""
    parts = [(group, name, part) for group, names in NAMING.items() for name in values.node(group) for part in names]
    for key in ("task_name", *FOLDERS, *(".".join(map(str, part)) for part in parts)):
        value = values[key]
        if isinstance(value, str) and (hide_secrets(value, certain=True) != value or _names_secret(key, value)):
            yield f"{key}={MASK}: holds a secret, which the name of a folder or a file would show. Remove it."
            return  # the others are below it


def _names_secret(key: str, value: str) -> bool:
    """Return whether a folder is named after overrides, one of which has a secret key."""
    texts = (part.partition("=") for part in re.split(r"[,/]", value)) if key == "hydra.sweep.subdir" else ()
    return any(holds_secret(name.lstrip("+"), text) for name, _, text in texts)


def _of_names(values: _Values) -> Iterator[str]:
    task = values["task_name"]
    if isinstance(task, str) and (fault := _task_fault(task)):
        yield f"task_name={_shown(task)}: {fault}. Name one folder, e.g. task_name=train."
        return  # the folders have it in their paths
    for key in FOLDERS:
        folder = values[key]
        if isinstance(folder, str) and (fault := _folder_fault(key, folder)):
            yield f"{key}={_shown(folder)}: {fault}."
            return
    if values["monitor"] == "":
        yield "monitor=: is empty. Name a metric that the model logs, e.g. monitor=val/loss."


def _task_fault(task: str) -> str:
    if task in {"", ".", ".."} or "/" in task or "\\" in task or printable(task) != task:
        return "is not the name of a folder"
    size = len(task.encode())
    return f"has {size} bytes, and the name of a task may have {LONGEST_TASK}" if size > LONGEST_TASK else ""


def _folder_fault(key: str, folder: str) -> str:
    path = PurePath(folder)
    if not folder:
        return "is empty. Name a folder"
    if printable(folder) != folder:
        return "holds a control character. Remove it"
    if size := next((size for part in path.parts if (size := len(part.encode())) > LONGEST_NAME), 0):
        return f"a name in it has {size} bytes, and file systems take {LONGEST_NAME}. Shorten it"
    if key == "hydra.sweep.subdir" and (path.is_absolute() or ".." in path.parts or not path.parts):
        return "leads out of the folder of the sweep. Name a folder in it, e.g. ${hydra.job.num}"
    return ""


def _of_numbers(values: _Values) -> Iterator[str]:
    for group in ("resilience", "distributed"):
        names = [str(name) for name in values.node(group) if str(name).endswith("_seconds")]
        for key in (f"{group}.{name}" for name in names):
            value = values[key]
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_number and not 0 <= value <= MOST_SECONDS:
                yield f"{key}={value}: is not a number of seconds from 0 to {MOST_SECONDS:,}. Set e.g. {key}=60."

    for key in ("max_epochs", "min_epochs", "max_steps", "min_steps"):
        value = values[f"trainer.{key}"]
        if isinstance(value, float) and value.is_integer() and key == "max_epochs":
            yield f"trainer.{key}={value:g}: is not a whole number for Lightning. Write it without point and exponent."
        elif isinstance(value, (int, float)) and MOST_STEPS < value < math.inf:
            yield f"trainer.{key}={value:.3g}: is more than any run takes. Set -1 for no limit."
    for key, value in leaves(values.node("data"), "data"):
        resolved = values[key] if last_part(key) == "num_workers" and value is not None else None
        if isinstance(resolved, int) and resolved > MOST_WORKERS:
            yield f"{key}={resolved}: would start {resolved:,} processes. Set {MOST_WORKERS:,} or fewer."


def explain_folder(error: BaseException, cfg: DictConfig | None) -> str:
    """Return one line about a file that cannot be written to the folder of a callback; empty for other errors."""
    file = getattr(error, "filename", None)
    if cfg is None or not isinstance(error, OSError) or not isinstance(file, str):
        return ""
    values = _Values(cfg)
    for name in values.node("callbacks"):
        key = f"callbacks.{name}.dirpath"
        folder = values[key]
        if isinstance(folder, str) and folder and Path(file).is_relative_to(folder) and not Path(folder).is_dir():
            return f"{key}={_shown(folder)}: {error.strerror}. {REMEDY}"
    return ""


def _of_checkpoints(values: _Values) -> Iterator[str]:
    """Yield the folders and file names of checkpoints that would stop a run at its first save."""
    for name in values.node("callbacks"):
        key = f"callbacks.{name}.dirpath"
        folder = values[key]
        if isinstance(folder, str) and "://" not in folder and (fault := _write_fault(Path(folder))):
            yield f"{key}={_shown(folder)}: {fault}. {REMEDY}"
        key = f"callbacks.{name}.filename"
        pattern = values[key]
        if isinstance(pattern, str) and (fault := _pattern_fault(pattern)):
            yield f"{key}={_shown(pattern)}: {fault}. Write e.g. 'best-{{epoch:03d}}'."


def _write_fault(folder: Path) -> str:
    """Return why a folder cannot be made or written to, or an empty string."""
    for existing in (folder, *folder.absolute().parents):
        if not os.path.exists(existing):  # noqa: PTH110 - never fails on odd text
            continue
        if not existing.is_dir():
            return f"{existing} is a file"
        return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} may not be written to"
    return ""


def _pattern_fault(pattern: str) -> str:
    if printable(pattern) != pattern:
        return "holds a control character"
    try:
        fields = [*Formatter().parse(pattern)]
    except ValueError as error:
        return f"has braces that do not fit ({error})"
    for text, field, spec, _ in fields:
        if size := next((size for part in text.split("/") if (size := len(part.encode())) > LONGEST_CHECKPOINT), 0):
            return f"has {size} bytes, and the name of a checkpoint may have {LONGEST_CHECKPOINT}"
        if field is not None and (not field or field.isdigit()):
            return f"{{{field}}} names no metric"
        if spec and not (_can_format(1, spec) or _can_format(1.0, spec)):
            return f"{spec!r} is no format of a number"
    return ""


def _can_format(value: float, spec: str) -> bool:
    try:
        format(value, spec)
    except ValueError:
        return False
    return True


def _value(cfg: DictConfig, key: str) -> Any:
    """Return a resolved value; None for one that is missing, or that only a run can resolve."""
    try:
        value = OmegaConf.select(cfg, key)
    except (OmegaConfBaseException, ValueError, AttributeError):
        return None
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value


def _shown(text: str) -> str:
    plain = printable(text)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}..."
