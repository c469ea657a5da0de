"""The files of live control in a run directory: edits in `live.jsonl`, the present state in `live.status.yaml`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fulgurite.core.errors import UserError
from fulgurite.core.files import MAX_LINES, read_regular, write_atomic
from fulgurite.core.redact import without_secrets
from fulgurite.live.document.keys import COMMANDS, Document
from fulgurite.runs.layout import LIVE_HISTORY, LIVE_STATUS


@dataclass(frozen=True)
class Edit:
    """One change of a run, applied as a whole before a batch.

    Attributes:
        batch: Batches trained on before it, over all epochs.
        step: Optimizer steps before it.
        epoch: The epoch, counted from 0.
        changed: Dotted key to new value; None for a key that was removed.
        commands: Command to its counter.
        document: All keys after it.
        source: Where it came from.
        time: ISO 8601, UTC.
    """

    batch: int
    step: int
    epoch: int
    changed: Document
    commands: dict[str, int]
    document: Document
    source: str = ""
    time: str = ""

    def describe(self) -> str:
        """Return the change in one line, without secrets."""
        changed = without_secrets(self.changed)
        settings = [f"{key}={value if key in self.document else 'removed'}" for key, value in changed.items()]
        return ", ".join([*settings, *(f"command {name}" for name in self.commands)])


@dataclass
class Status:
    """What `live.status.yaml` holds."""

    state: str = "watching"  # or ended
    sources: list[str] = field(default_factory=list)
    version: str = ""  # of the document that was read last
    result: str = "nothing read"  # or applied, refused, unchanged
    epoch: int = 0
    step: int = 0
    document: Document = field(default_factory=dict)
    refused: dict[str, Any] | None = None  # time, source and reasons of the newest refusal

    def write(self, folder: Path) -> None:
        """Replace the file in a run directory."""
        import yaml

        text = yaml.safe_dump(without_secrets(asdict(self)), sort_keys=False, allow_unicode=True, width=1000)
        write_atomic(
            folder / LIVE_STATUS, f"# Written by the run. Change it with: python -m fulgurite live set\n{text}"
        )


def read_status(folder: Path) -> dict[str, Any]:
    """Return the content of `live.status.yaml`.

    Raises:
        UserError: The run has none, or it is not readable.
    """
    import yaml

    path = folder / LIVE_STATUS
    try:
        content = yaml.safe_load(read_regular(path).decode())
    except FileNotFoundError:
        raise UserError(
            f"--run={folder}: this run takes no edits, or does not train yet. Start it with callbacks=[default,live]."
        ) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: is not readable ({str(error).splitlines()[0]}). The run writes it anew.") from None
    kinds: dict[str, Any] = {"sources": list, "document": dict, "refused": (dict, type(None))}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path}: is not a status. The run writes it anew.")
    return content


def append(folder: Path, entry: dict[str, Any]) -> None:
    """Add a line to `live.jsonl` in one write, which a kill leaves whole or missing."""
    line = json.dumps(entry, allow_nan=False).encode() + b"\n"
    handle = os.open(folder / LIVE_HISTORY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def rewrite(folder: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Replace `live.jsonl`."""
    write_atomic(folder / LIVE_HISTORY, "".join(f"{json.dumps(entry, allow_nan=False)}\n" for entry in entries))


def read_entries(path: Path, *, named: str = "") -> list[dict[str, Any]]:
    """Return the lines of a history: edits, and refusals with the key `refused`. A torn last line is left out.

    Args:
        path: `live.jsonl` of a run.
        named: How the user named it; begins a message. Empty: a missing file has no lines.

    Raises:
        UserError: The file is missing or is not a history.
    """
    try:
        lines = read_regular(path, MAX_LINES).decode().split("\n")[:-1]
    except FileNotFoundError:
        if not named:
            return []
        raise UserError(f"{named}: there is no such file. Pass the {LIVE_HISTORY} of a run.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{named or path}: is not readable ({error}). Pass the {LIVE_HISTORY} of a run.") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("refused", []), list):
                raise TypeError("is not a dictionary")
            if "refused" not in entry:
                as_edit(entry)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError(
                f"{named or path}: line {number} is not an edit. Pass the {LIVE_HISTORY} of a run."
            ) from None
        entries.append(entry)
    return entries


def as_edit(entry: dict[str, Any]) -> Edit:
    """Return a line of a history as an edit.

    Raises:
        TypeError: A field is missing or has another type.
    """
    edit = Edit(**{name: entry[name] for name in Edit.__dataclass_fields__})
    kinds = (int, int, int, dict, dict, dict, str, str)
    if not all(type(value) is kind for value, kind in zip(vars(edit).values(), kinds, strict=True)):
        raise TypeError("a field has another type")
    if not all(name in COMMANDS and type(count) is int for name, count in edit.commands.items()):
        raise TypeError("a command is unknown")
    return edit


def edits_of(entries: Iterable[dict[str, Any]]) -> list[Edit]:
    """Return the edits among the lines of a history."""
    return [as_edit(entry) for entry in entries if "refused" not in entry]


def live_value(folder: Path, key: str) -> Any:
    """Return the value that the newest edit in a run directory gives a key; None without one."""
    try:
        edits = edits_of(read_entries(folder / LIVE_HISTORY))
    except UserError:  # the resumed run reports it
        return None
    return edits[-1].document.get(key) if edits else None
