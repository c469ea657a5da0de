"""Read the sources of live edits in the background; a failed read never ends the watching."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePosixPath

from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import hide_secrets
from fulgurite.live.document.keys import COMMANDS, Document, check, flatten
from fulgurite.sources.formats import SUFFIXES, parse
from fulgurite.sources.reader import Reader, SourceError, open_reader, without_credentials

log = RankedLogger(__name__)

SETTLE_SECONDS = 0.1  # between the two reads of a file that must be equal: an editor may write it in parts
MAX_DELAY = 60.0  # seconds between two tries of a source that fails


@dataclass(frozen=True)
class Received:
    """A document that a source gave, or why it is refused.

    Attributes:
        document: Of all sources, a later one wins.
        problems: One line each; then the document is the last good one.
        source: The source that changed.
        version: The first digits of the sha256 of its data.
        is_first: Whether it is the first document of the source: its commands are left over from an earlier run.
    """

    document: Document
    problems: list[str]
    source: str
    version: str
    is_first: bool


@dataclass
class _Source:
    address: str
    reader: Reader | None = None
    name: str = ""  # the address without credentials
    suffix: str = ""
    version: str | None = None  # of the last document that was passed on
    document: Document = field(default_factory=dict)
    is_new: bool = True
    error: str = ""  # of the last read
    torn: str = ""  # version of a half-written file

    def __post_init__(self) -> None:
        self.name = name_of(self.address)
        self.suffix = PurePosixPath(self.name).suffix.lower()
        self.suffix = self.suffix if self.suffix in SUFFIXES else ".yaml"

    @property
    def is_file(self) -> bool:
        return "://" not in self.address or self.address.startswith("file://")


class Watcher:
    """Threads that read the sources, one each.

    Args:
        sources: Addresses of a file, or of a key: a path, or a URL of http, https, etcd or consul.
        seconds: Between two polls of a source that cannot notify.

    Attributes:
        inbox: What the training has not read yet, the oldest first.
    """

    def __init__(self, sources: Sequence[str], seconds: float) -> None:
        self.inbox: deque[Received] = deque()
        self.seconds = seconds
        self._sources = [_Source(address) for address in sources]
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # of the documents of several sources

    def start(self) -> None:
        """Read the local files once, and start a thread for each source."""
        for source in self._sources:
            if source.is_file:
                self._read(source)
            thread = threading.Thread(target=self._watch, args=(source,), name=f"live {source.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the threads; one that waits for a server ends with the process."""
        self._closed.set()
        for source in self._sources:
            if source.reader is not None:
                source.reader.close()
        for thread in self._threads:
            thread.join(timeout=self.seconds)

    def _watch(self, source: _Source) -> None:
        delay = self.seconds
        while not self._closed.is_set():
            is_read = self._read(source)
            delay = self.seconds if is_read or source.is_file else min(2 * delay, MAX_DELAY)
            if not is_read or source.torn:
                self._closed.wait(delay)
            else:
                self._wait(source)

    def _wait(self, source: _Source) -> None:
        started = time.monotonic()
        try:
            assert source.reader is not None
            if source.reader.wait("", source.version, self.seconds):
                return
        except Exception as error:  # noqa: BLE001 - the next read reports it
            log.debug("live: %s", error)
        self._closed.wait(max(0.0, self.seconds - (time.monotonic() - started)))

    def _read(self, source: _Source) -> bool:
        """Read a source once and return whether it answered."""
        try:
            if source.reader is None:
                source.reader = open_reader(source.address)
            self._receive(source, source.reader)
        except Exception as error:  # noqa: BLE001 - whatever a server or a disk does, the run trains on
            text = hide_secrets(str(error).partition("\n")[0])
            if text != source.error and not self._closed.is_set():
                log.warning("live: %s. The run keeps its values and tries again.", text.rstrip("."))
            source.error = text
            return False
        if source.error:
            log.info("live: %s answers again", source.name)
        source.error = ""
        return True

    def _receive(self, source: _Source, reader: Reader) -> None:
        fetched = reader.read("")
        if fetched is None:  # not there yet, or an editor replaces it: nothing changes
            source.is_new = False
            return
        if fetched.version == source.version:
            return
        if source.is_file and not source.is_new:
            self._closed.wait(SETTLE_SECONDS)
            again = reader.read("")
            if again is None or again.version != fetched.version:
                return
        problems: list[str] = []
        is_empty = not fetched.data.strip()
        if source.is_file and (is_empty or not fetched.data.endswith(b"\n")):
            if source.torn != fetched.version:
                source.torn = fetched.version
                return
            what = "is empty" if is_empty else "does not end with a newline"
            problems = [f"{source.name}: {what}, so it may be half-written. Write it whole; `{{}}` removes all edits."]
        source.torn, source.version = "", fetched.version
        document: Document = {}
        if not problems:
            try:
                document, problems = check(flatten(parse(fetched.data, source.suffix, source.name)))
            except SourceError as error:
                problems = [str(error)]
            except UserError as error:
                problems = [f"{source.name}: {error}"]
        self._pass_on(source, document, problems, sha256(fetched.data).hexdigest()[:16])

    def _pass_on(self, source: _Source, document: Document, problems: list[str], version: str) -> None:
        with self._lock:
            before, is_first = source.document, source.is_new
            if problems and is_first:  # the counters of a document that is refused are left over as well
                before = {key: count for key, count in document.items() if key in COMMANDS and type(count) is int}
            source.document = before if problems else document
            merged = self._merged()
            if not problems:
                merged, problems = check(merged)
            if problems:
                source.document = before
                merged = self._merged()
            source.is_new = source.is_new and bool(problems) and not document
            self.inbox.append(Received(merged, problems, source.name, version, is_first))

    def _merged(self) -> Document:
        merged: Document = {}
        for source in self._sources:
            merged.update(source.document)
        return merged


def name_of(address: str) -> str:
    """Return an address without credentials and options."""
    return without_credentials(address.partition("#")[0] if "://" in address else address)
