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
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from fulgurite.core.cli_parser import CommandParser, one_of, print_error
from fulgurite.core.errors import FulguriteError, UserError
from fulgurite.core.files import file_lock, read_regular, write_atomic
from fulgurite.core.formatting import short_path
from fulgurite.core.project import project_root
from fulgurite.live.document.history import read_entries, read_status
from fulgurite.live.document.keys import COMMANDS, KEYS, SECTIONS, Document, check, flatten
from fulgurite.runs.layout import LIVE_EDITS, LIVE_HISTORY
from fulgurite.runs.lock import is_locked
from fulgurite.runs.run_directory import RunDirectory, find_runs, read_runs
from fulgurite.sources.formats import parse
from fulgurite.sources.reader import MAX_BYTES, SourceError

ACTIONS = ("set", "get", "history", "checkpoint", "validate", "stop")
LAST = "last"


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options, `action`, and `values`: key to value."""
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
    if query.action != "set" and query.arguments:
        raise UserError(f"{query.arguments[0]}: {query.action} takes no values. Pass --run <run directory>.")
    pairs = [_key_and_value(text) for text in query.arguments]
    query.values = dict(pairs)
    if twice := next((key for key in query.values if [name for name, _ in pairs].count(key) > 1), None):
        raise UserError(f"{twice}: is given twice. Write it once.")
    if query.values.get("lr") is not None and query.values.get("lr_scale") is not None:
        raise UserError("lr: excludes lr_scale. Set one of them.")
    if query.action == "set" and not query.values:
        raise UserError("set: names no value. Pass e.g. set lr_scale=0.1.")
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
    if not value.strip():  # such as an unset variable of the shell
        raise UserError(f"{text}: has no value. Pass {key}=null to remove the key, or {key}='\"\"' for an empty text.")
    try:
        found = parse(f"value: {value}".encode(), ".yaml", key)
    except SourceError as error:
        raise UserError(f"{key}={value}: {error.problem}. Pass a value in YAML, quoted for the shell.") from None
    if len(found) > 1:
        raise UserError(f"{key}: has several lines. Pass one value.")
    return key, found["value"]


def find_run(name: str) -> Path:
    """Return the run directory that a user named; `last`: the newest that trains, else the newest."""
    if name != LAST:
        return RunDirectory.read(Path(name).expanduser().absolute(), argument=f"--run={name}").folder
    logs = project_root() / "logs"
    runs = sorted(read_runs(find_runs(logs)), key=lambda run: (is_locked(run.folder), str(run.record.get("start"))))
    if not runs:
        raise UserError(f"--run={LAST}: {logs} holds no run. Name a run directory.")
    return runs[-1].folder


def edit_file(
    folder: Path, status: dict[str, Any], values: Document, command: str = ""
) -> tuple[Document, bytes, bytes]:
    """Change `live.yaml` of a run, as a whole, and return the document and the bytes before and after.

    None as a value removes a key.

    Raises:
        UserError: A key or a value is invalid, the file is not readable, or the run reads another source.
    """
    import yaml

    path = folder / LIVE_EDITS
    sources = [str(source) for source in status.get("sources") or []]
    if str(path) not in [str(Path(source).absolute()) for source in sources]:
        raise UserError(f"--run={folder}: this run reads {', '.join(sources)}. Change the document there.")
    with file_lock(folder / f".{LIVE_EDITS}.lock", timeout=10):
        data = _content(path)
        document = flatten(parse(data, ".yaml", str(path)))
        removed = {
            key: None for key, value in values.items() if value is None and key not in {**document, **KEYS, **COMMANDS}
        }
        for key, value in values.items():
            document.pop(key, None)
            # lr and lr_scale exclude each other: the new one replaces the old
            document.pop({"lr": "lr_scale", "lr_scale": "lr"}.get(key, key), None)
            if value is not None:
                document[key] = value
        if command:
            seen = (status.get("document") or {}).get(command, 0)
            document[command] = max(document.get(command, 0), seen) + 1
        edited = {key: document[key] for key in (*values, command) if key in document}
        if problems := check({**edited, **removed})[1]:
            raise UserError("\n".join(problems))
        document, _ = check(document)  # the run reports what is wrong in the rest
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True) if document else "{}\n"
        _replace(path, text.encode())
    return document, data, text.encode()


def take_back(folder: Path, before: bytes, after: bytes) -> None:
    """Put the former content of `live.yaml` back, unless it was changed again: the next edit is judged by itself."""
    path = folder / LIVE_EDITS
    with file_lock(folder / f".{LIVE_EDITS}.lock", timeout=10):
        if _content(path) == after:
            _replace(path, before)


def _version(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


def _content(path: Path) -> bytes:
    """Return the content of the document; an empty one where there is no file, or one that no run reads."""
    try:
        return read_regular(path, MAX_BYTES) if path.is_file() else b"{}\n"
    except OSError as error:
        raise UserError(f"{path}: is not readable ({error.strerror or error}). Correct or remove it.") from None


def _replace(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}). Correct or remove it.") from None


def wait_for_answer(folder: Path, version: str, edit: Document, seconds: float) -> dict[str, Any] | None:
    """Return the status of a run once it has read an edit; None when it did not in time.

    Before the run reads the document, another command may add to it: then its version is another one.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and is_locked(folder):
        status = read_status(folder)
        if status.get("version") == version and status.get("result") in {"applied", "refused", "unchanged"}:
            return status
        is_newer = status.get("version") == _version(_content(folder / LIVE_EDITS))
        is_applied = status.get("result") == "applied"
        if is_newer and is_applied and all(status["document"].get(key) == edit[key] for key in edit):
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
        return print_error(error)
    return 0


def _change(folder: Path, query: argparse.Namespace) -> None:
    status = read_status(folder)
    command = f"stop_after_{query.after}" if query.action == "stop" else "" if query.action == "set" else query.action
    commands = [key for key in COMMANDS if query.values.get(key) is not None or key == command]
    if commands and not is_locked(folder):
        what = query.action if command else commands[0]
        remedy = "Resume it first; a run ignores the commands of earlier ones."
        raise UserError(f"{what}: {short_path(folder)} does not train now. {remedy}")
    document, before, after = edit_file(folder, status, query.values, command)
    edit = {key: document.get(key) for key in [*query.values, *filter(None, [command])]}
    answer = wait_for_answer(folder, _version(after), edit, query.wait) if query.wait else None
    if answer is not None and answer["result"] == "refused":
        take_back(folder, before, after)
        raise UserError("\n".join(f"refused: {reason}" for reason in answer["refused"]["reasons"]))
    if answer is not None and answer["result"] == "unchanged" and command:
        raise UserError(f"{query.action}: the run was starting, and took no command yet. Repeat it.")
    if answer is not None:
        result = f"{answer['result']} before step {answer['step']}"
    else:
        result = "written. The run has not read it yet" if is_locked(folder) else "written. The run does not train now"
    if query.json:
        found = {"run": str(folder), "result": answer["result"] if answer else "written", "document": document}
        print(json.dumps({**found, "step": answer["step"] if answer else None}))
    else:
        print(f"{short_path(folder)}: {result}")


def _show_status(folder: Path, status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": str(folder), **status}))
        return
    state = status.get("state") if is_locked(folder) else "not training"
    print(f"{short_path(folder)}: {state}, epoch {status.get('epoch')}, step {status.get('step')}")
    for key, value in (status.get("document") or {}).items():
        print(f"  {key}: {value}" + (" (counter)" if key in COMMANDS else ""))
    if status.get("result") == "refused":
        for reason in (status.get("refused") or {}).get("reasons", ()):
            print(f"  refused: {reason}")


def _show_history(folder: Path, *, as_json: bool) -> None:
    entries = read_entries(folder / LIVE_HISTORY)
    if as_json:
        print(json.dumps(entries))
        return
    for entry in entries:
        if "refused" in entry:
            print(f"{entry.get('time')}  step {entry.get('step')}  refused: {' '.join(map(str, entry['refused']))}")
        else:
            settings = [
                f"{key}={value if key in entry['document'] else 'removed'}" for key, value in entry["changed"].items()
            ]
            print(f"{entry['time']}  step {entry['step']}  {', '.join([*settings, *entry['commands']])}")
