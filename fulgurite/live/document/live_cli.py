"""Change a run while it trains, and see what was changed. The run has callbacks=[default,live].

    python -m fulgurite live set lr_scale=0.1 max_epochs=20 --run last
    python -m fulgurite live set lr_scale=null
    python -m fulgurite live get
    python -m fulgurite live history
    python -m fulgurite live checkpoint
    python -m fulgurite live validate
    python -m fulgurite live stop --after epoch

`set` changes some keys of live.yaml in the run directory and keeps the others; null removes a key, whose value becomes
that of the config again. It waits until the run has applied the edit: the exit code is 0, or 2 when it is refused, and
then the file is as before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from fulgurite.core.cli_parser import CommandParser, one_of
from fulgurite.core.errors import FulguriteError, UserError
from fulgurite.core.files import file_lock, write_atomic
from fulgurite.core.project import project_root
from fulgurite.live.document.history import read_entries, read_status
from fulgurite.live.document.keys import COMMANDS, KEYS, SECTIONS, Document, check, flatten
from fulgurite.runs.layout import LIVE_EDITS, LIVE_HISTORY
from fulgurite.runs.lock import is_locked
from fulgurite.runs.run_directory import RunDirectory, find_runs
from fulgurite.sources.formats import parse

ACTIONS = ("set", "get", "history", "checkpoint", "validate", "stop")
LAST = "last"


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options, `action`, and `values`: key to value.

    Raises:
        UserError: The command line is invalid.
    """
    keys = "".join(f"  {name:24}{key.what}\n" for name, key in KEYS.items())
    sections = "".join(f"  {f'{name}.<name>':24}passed to on_live_change of the {name}\n" for name in SECTIONS)
    parser = CommandParser("live", f"{__doc__}\nkeys:\n{keys}{sections}")
    add = parser.add_argument
    add("action", type=one_of("action", ACTIONS), help=", ".join(ACTIONS))
    add("arguments", nargs="*", metavar="key=value", help="values to set, in YAML")
    add("--run", default=LAST, help="run directory; last: the newest run that trains, else the newest (last)")
    add("--after", type=one_of("--after", ("step", "epoch")), default="step", help="with stop: step or epoch (step)")
    add("--wait", type=_seconds, default=10.0, metavar="SECONDS", help="for the run to answer; 0 does not wait (10)")
    add("--json", action="store_true", help="print JSON")
    query = parser.parse(argv)
    query.values = dict(_key_and_value(text) for text in query.arguments)
    if query.action == "set" and not query.values:
        raise UserError("set: names no value. Pass e.g. set lr_scale=0.1.")
    if query.action != "set" and query.arguments:
        raise UserError(f"{query.arguments[0]}: {query.action} takes no values. Pass --run <run directory>.")
    return query


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"--wait={text}: not a number of seconds. Pass e.g. --wait 10.")
    return seconds


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text}: is not key=value. Pass e.g. lr_scale=0.1.")
    return key, parse(f"value: {value}".encode(), ".yaml", text).get("value")


def find_run(name: str) -> Path:
    """Return the run directory that a user named; `last`: the newest that trains, else the newest.

    Raises:
        UserError: There is none.
    """
    if name != LAST:
        return RunDirectory.read(Path(name).expanduser().absolute(), argument=f"--run={name}").folder
    logs = project_root() / "logs"
    runs = [run for folder in find_runs(logs) if (run := RunDirectory.of(Path(folder))) is not None]
    runs.sort(key=lambda run: (is_locked(run.folder), str(run.record.get("start"))))
    if not runs:
        raise UserError(f"--run={LAST}: {logs} holds no run. Name a run directory.")
    return runs[-1].folder


def edit_file(
    folder: Path, status: dict[str, Any], values: Document, command: str = ""
) -> tuple[Document, bytes, bytes]:
    """Change `live.yaml` of a run, as a whole, and return the document and the bytes before and after.

    Args:
        folder: The run directory.
        status: Of the run, with the counters that it has seen.
        values: Key to value; None removes a key.
        command: A command to run once.

    Raises:
        UserError: A key or a value is invalid, the file is not readable, or the run reads another source.
    """
    import yaml

    path = folder / LIVE_EDITS
    sources = [str(source) for source in status.get("sources") or []]
    if str(path) not in [str(Path(source).absolute()) for source in sources]:
        raise UserError(f"--run={folder}: this run reads {', '.join(sources)}. Change the document there.")
    with file_lock(folder / f".{LIVE_EDITS}.lock", timeout=10):
        data = path.read_bytes() if path.is_file() else b"{}\n"
        document = flatten(parse(data, ".yaml", str(path)))
        for key, value in values.items():
            document.pop(key, None)
            # lr and lr_scale exclude each other: the new one replaces the old
            document.pop({"lr": "lr_scale", "lr_scale": "lr"}.get(key, key), None)
            if value is not None:
                document[key] = value
        if command:
            seen = (status.get("document") or {}).get(command, 0)
            document[command] = max(document.get(command, 0), seen) + 1
        document, problems = check(document)
        if mine := [line for line in problems if line.partition("=")[0] in {*values, command}]:
            raise UserError("\n".join(mine))
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True) if document else "{}\n"
        write_atomic(path, text)
    return document, data, text.encode()


def take_back(folder: Path, before: bytes, after: bytes) -> None:
    """Put the former content of `live.yaml` back, unless it was changed again: the next edit is judged by itself."""
    path = folder / LIVE_EDITS
    with file_lock(folder / f".{LIVE_EDITS}.lock", timeout=10):
        if path.read_bytes() == after:
            write_atomic(path, before)


def wait_for_answer(folder: Path, version: str, seconds: float) -> dict[str, Any] | None:
    """Return the status of a run once it has read a version of the document; None when it did not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and is_locked(folder):
        status = read_status(folder)
        if status.get("version") == version and status.get("result") in {"applied", "refused", "unchanged"}:
            return status
        time.sleep(0.05)
    return None


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit code."""
    try:
        query = parse_args(argv)
        folder = find_run(query.run)
        if query.action == "get":
            _show_status(folder, read_status(folder), as_json=query.json)
        elif query.action == "history":
            _show_history(folder, as_json=query.json)
        else:
            _change(folder, query)
    except FulguriteError as error:
        sys.stderr.write("".join(f"error: {line}\n" for line in str(error).splitlines()))
        return error.exit_code
    return 0


def _change(folder: Path, query: argparse.Namespace) -> None:
    status = read_status(folder)
    command = f"stop_after_{query.after}" if query.action == "stop" else "" if query.action == "set" else query.action
    document, before, after = edit_file(folder, status, query.values, command)
    answer = wait_for_answer(folder, sha256(after).hexdigest()[:16], query.wait) if query.wait else None
    if answer is not None and answer["result"] == "refused":
        take_back(folder, before, after)
        raise UserError("\n".join(f"refused: {reason}" for reason in answer["refused"]["reasons"]))
    if answer is not None:
        result = f"{answer['result']} before step {answer['step']}"
    else:
        result = "written. The run has not read it yet" if is_locked(folder) else "written. The run does not train now"
    if query.json:
        found = {"run": str(folder), "result": answer["result"] if answer else "written", "document": document}
        print(json.dumps({**found, "step": answer["step"] if answer else None}))
    else:
        print(f"{_shown(folder)}: {result}")


def _shown(folder: Path) -> Path:
    """Return a path below the working directory without it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _show_status(folder: Path, status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": str(folder), **status}))
        return
    state = status.get("state") if is_locked(folder) else "not training"
    print(f"{_shown(folder)}: {state}, epoch {status.get('epoch')}, step {status.get('step')}")
    for key, value in (status.get("document") or {}).items():
        print(f"  {key}: {value}" + (" (counter)" if key in COMMANDS else ""))
    if status.get("result") == "refused":
        for reason in (status.get("refused") or {}).get("reasons", ()):
            print(f"  refused: {reason}")


def _show_history(folder: Path, *, as_json: bool) -> None:
    for entry in read_entries(folder / LIVE_HISTORY):
        if as_json:
            print(json.dumps(entry))
        elif "refused" in entry:
            print(f"{entry.get('time')}  step {entry.get('step')}  refused: {' '.join(map(str, entry['refused']))}")
        else:
            settings = [
                f"{key}={value if key in entry['document'] else 'removed'}" for key, value in entry["changed"].items()
            ]
            print(f"{entry['time']}  step {entry['step']}  {', '.join([*settings, *entry['commands']])}")
