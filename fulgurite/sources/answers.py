"""What each source of the config search path answered in this process, so that a sweep asks for each file once.

The answers come from the snapshot of a run where one is set (a resume, an evaluation, the ranks of a run), else from
the source, else, with `stop_on_failure=false`, from the copy of the last good fetch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fulgurite.core.context import current_context
from fulgurite.core.rank_logging import rank
from fulgurite.sources.formats import SUFFIXES
from fulgurite.sources.reader import Fetched, ReadOptions, SourceError, open_reader, split_options
from fulgurite.sources.snapshot import FOLDER, INDEX, SAVED, Record, cache_folder, load_records, save_records
from fulgurite.trust.run_directories import is_foreign
from fulgurite.trust.sources import Sources

SNAPSHOT_VARIABLE = "FULGURITE_SOURCES"  # of the environment: the `saved_snapshot` of the process that starts another
T = TypeVar("T")
_answers: dict[str, Answers] = {}  # address -> answers


class Answers:
    """The lists and files of one source that this process asked for, those that are not there included.

    Args:
        address: With its options.
    """

    def __init__(self, address: str) -> None:
        self.address, self.reader = address, open_reader(address)
        self.name = self.reader.name
        self.options = split_options(address, ReadOptions())[1]
        self.record = Record(self.name)
        self.failure: SourceError | None = None
        self._copies: dict[bool, Record | None] = {}

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none where the source fails, which is logged once."""
        if folder not in self.record.lists and self.failure is None:
            copy = self._snapshot()
            if copy is not None and folder in copy.lists:
                self.record.lists[folder] = copy.lists[folder]
                return copy.lists[folder]
            if not current_context().asks_sources:
                return []
            try:
                found = self._fetched(lambda: self.reader.list(folder), lambda old: old.lists.get(folder))
            except SourceError as error:
                self._fail(error)
                return []
            self.record.lists[folder] = found
            self._keep()
            if not folder and not found:
                _warn(f"{self.name}: lists no files. Configs in it are found by the names of their .yaml files only.")
        return self.record.lists.get(folder, [])

    def place(self, path: str) -> str:
        """Return the address of a file, for messages."""
        return f"{self.name.rstrip('/')}/{path}"

    def has_folder(self, folder: str) -> bool:
        """Return whether the source lists a folder, for the empty path whether it lists anything."""
        parent = ""
        for part in filter(None, folder.split("/")):
            if f"{part}/" not in self.names(parent):
                return False
            parent = f"{parent}/{part}" if parent else part
        return bool(self.names(""))

    def find(self, config_path: str) -> str | None:
        """Return the path of a config with its suffix; None if the source has none or fails."""
        folder, _, name = config_path.rpartition("/")
        is_whole = name.endswith(SUFFIXES)
        candidates = [config_path] if is_whole else [f"{config_path}{suffix}" for suffix in SUFFIXES]
        if name in {"", "None"}:  # None: Hydra looks for the config of `optional group: null`
            return None
        if self.names(""):
            names = self.names(folder) if self.has_folder(folder) else []
            return next((path for path in candidates if path.rpartition("/")[2] in names), None)
        if self.failure is not None or not current_context().asks_sources:
            return None
        try:  # a web server that lists no folders
            return next((path for path in candidates[:1] if self.read(path) is not None), None)
        except SourceError as error:
            self._fail(error)
            return None

    def read(self, path: str) -> Fetched | None:
        """Return a file; None where there is none.

        Raises:
            SourceError: The source failed.
        """
        if path not in self.record.files:
            copy = self._snapshot()
            if copy is not None and (path in copy.files or path in copy.absent):
                self.record.files[path] = copy.files.get(path)
                return copy.files.get(path)
            if self.failure is not None:
                raise self.failure
            self.record.files[path] = self._fetched(lambda: self.reader.read(path), lambda old: old.files.get(path))
            self._keep()
        return self.record.files[path]

    def _fail(self, error: SourceError) -> None:
        """Note that the source cannot be asked, and say so once; what is not in it does not need it."""
        if self.failure is None:
            self.failure = error
            _warn(f"{error} Composing without it.")

    def _fetched(self, request: Callable[[], T], of_copy: Callable[[Record], T | None]) -> T:
        try:
            return request()
        except SourceError as error:
            old = None if self.options.stop_on_failure else self._copy(is_snapshot=False)
            found = None if old is None else of_copy(old)
            if old is None or found is None:
                raise
            if not self.record.of_copy:
                self.record.of_copy = old.fetched
                _warn(f"{error} This uses the copy of the last good fetch, {old.fetched}.")
            return found

    def _snapshot(self) -> Record | None:
        return self._copy(is_snapshot=True)

    def _copy(self, *, is_snapshot: bool) -> Record | None:
        if is_snapshot not in self._copies:
            folder = _snapshot_folder() if is_snapshot else cache_folder(self.name)
            self._copies[is_snapshot] = None if folder is None else load_records(folder).get(self.name)
        return self._copies[is_snapshot]

    def _keep(self) -> None:
        if not self.options.stop_on_failure and not self.record.of_copy and rank() == 0:
            save_records(cache_folder(self.name), [self.record])


def answers_of(address: str) -> Answers:
    """Return the answers of a source, the same in the whole process until `forget_answers`."""
    if address not in _answers:
        _answers[address] = Answers(address)
    return _answers[address]


def forget_answers() -> None:
    """Ask all sources again from now on."""
    while _answers:
        _answers.popitem()[1].reader.close()


def used_sources() -> list[str]:
    """Return the addresses of the sources, without credentials, of which this process composed a config."""
    return [f"{each.name}{each.record.note}" for each in _answers.values() if each.record.has_files]


def export_answers() -> dict[str, Any]:
    """Return all answers as plain values, for a job in another process."""
    return {each.name: each.record for each in _answers.values()}


def import_answers(records: dict[str, Any]) -> None:
    """Take over the answers of the process that composed this job."""
    for name, record in records.items():
        answers_of(name).record = record


def save_snapshot(folder: Path) -> None:
    """Write the answers of this process into a folder, where child ranks and later runs read them."""
    records = [each.record for each in _answers.values() if each.record.lists or each.record.files]
    if records:
        save_records(folder, records)
        current_context().saved_snapshot = folder


def snapshot_of(run: Path, overrides: Sequence[str] = ()) -> Path | None:
    """Return the folder with the sources of a run; None if it used none, or is another user's.

    Args:
        run: The run directory.
        overrides: The command line, which may trust the run directory.
    """
    folder = run / SAVED / FOLDER
    if not (folder / INDEX).is_file():
        return None
    if is_foreign(run, Sources(overrides)):  # a copy may pretend to be from an address that is trusted
        _warn(f"{folder}: is of another user. The sources are asked instead; to use it, pass trust=[{run}].")
        return None
    return folder


@contextmanager
def using_snapshot(run: str | Path | None) -> Iterator[None]:
    """Compose from the sources of a run; None changes nothing."""
    context = current_context()
    before = context.snapshot
    context.snapshot = before if run is None else snapshot_of(Path(run).expanduser())
    try:
        yield
    finally:
        context.snapshot = before


@contextmanager
def without_sources() -> Iterator[None]:
    """Compose as if the remote sources had nothing; none is asked."""
    context = current_context()
    context.asks_sources = False
    try:
        yield
    finally:
        context.asks_sources = True
        forget_answers()


def _snapshot_folder() -> Path | None:
    given = os.environ.get(SNAPSHOT_VARIABLE)
    return current_context().snapshot or (Path(given) if given else None)


def _warn(text: str) -> None:
    if rank() == 0:
        sys.stderr.write(f"warning: {text}\n")
