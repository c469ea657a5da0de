"""Processes that a launcher has started agree before they form a group: rank 0 decides, the others take its answer.

What they need first, the run directory, is no one's before rank 0 has reserved it. They meet at torchrun's own store,
or else by files in `paths.log_dir`. What an earlier start has left at the same place is never taken for an answer:

    call      rank 0      a word made up now
    <rank>    the others  the call they have seen, a word of their own, what they say
    answer    rank 0      the words of all, and what was decided
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

from omegaconf import DictConfig

from fulgurite.config.schema import Distributed, read_settings
from fulgurite.core.errors import EXIT_CRASH, FulguriteError, RefusedByRankZero, UserError
from fulgurite.core.files import write_atomic
from fulgurite.distributed.launch_env import LaunchInfo
from fulgurite.distributed.reachability import wait_for_master

MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.01, 0.2  # seconds between two looks, at first and after a while
CLOSE_SECONDS = 5.0  # seconds that the others may take to read the last answer
Decide = Callable[[list[Any]], Any]


class KeyValueStore(Protocol):
    """Where processes leave notes for one another."""

    def set(self, name: str, text: str) -> None:
        """Leave a note in the place of the one of that name."""

    def get(self, name: str) -> str | None:
        """Return a note; None while there is none."""

    def delete(self, name: str) -> None:
        """Take a note of one's own away."""

    def close(self) -> None:
        """Leave nothing behind."""


class DirectoryStore:
    """Notes in files of a folder that all machines see.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be made ({error.strerror}); the processes of a run meet there: "
                "make it writable or set paths.log_dir=<folder>"
            ) from error

    def __str__(self) -> str:
        return str(self.folder)

    def set(self, name: str, text: str) -> None:
        """Write the file, whole."""
        write_atomic(self.folder / name, text)

    def get(self, name: str) -> str | None:
        """Read the file."""
        with suppress(FileNotFoundError):
            return (self.folder / name).read_text()
        return None

    def delete(self, name: str) -> None:
        """Remove the file."""
        (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder when all have read the last answer."""
        wait = _Poll(CLOSE_SECONDS)
        while any(self.folder.glob("*-[0-9]*")) and wait.again():
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # another start meets beside it
            self.folder.parent.rmdir()


class TorchElasticStore:
    """Notes in the store that torchrun's agent keeps."""

    def __init__(self, timeout: float) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # torch does not say so

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.name = f"{address}:{port}"
        wait_for_master(address, port, timeout)
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=timeout))
        self.store = PrefixStore(f"fulgurite/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)

    def __str__(self) -> str:
        return self.name

    def set(self, name: str, text: str) -> None:
        """Set the key."""
        self.store.set(name, text)

    def get(self, name: str) -> str | None:
        """Read the key."""
        return self.store.get(name).decode() if self.store.check([name]) else None

    def delete(self, name: str) -> None:
        """Remove the key."""
        self.store.delete_key(name)

    def close(self) -> None:
        """Do nothing: it ends with torchrun."""


class Rendezvous:
    """Rounds in which all processes of a start say something, and rank 0 decides for all.

    Args:
        launch: Which process this is.
        store: Where they meet.
        timeout: Seconds to wait for one another in a round.

    Attributes:
        current: Of this process; None before the first and in a process that is alone.
    """

    current: ClassVar[Rendezvous | None] = None

    def __init__(self, launch: LaunchInfo, store: KeyValueStore, timeout: float) -> None:
        self.launch, self.store, self.timeout = launch, store, timeout
        self.rounds = 0

    def exchange(self, name: str, say: Any, decide: Decide) -> Any:
        """Return what rank 0 decides.

        Args:
            name: Of the round, for those who read the notes.
            say: What this process has to say; plain values.
            decide: Called on rank 0 with what all have said, in their order. Its answer, plain values, is everybody's.

        Raises:
            Refused: Rank 0 has refused and says so; on other ranks only.
            UserError: A rank did not come in time, or another start meets at the same place.
            Exception: What `decide` raises, on rank 0.
        """
        self.rounds += 1
        name = f"{self.rounds}-{name}"
        return self._lead(name, say, decide) if self.launch.rank == 0 else self._follow(name, say)

    def _lead(self, name: str, say: Any, decide: Decide) -> Any:
        call = secrets.token_hex(8)
        self.store.set(f"{name}-call", call)
        came: dict[int, dict[str, Any]] = {}
        wait = _Poll(self.timeout)
        try:
            while len(came) < self.launch.world_size - 1:
                for rank in set(range(1, self.launch.world_size)) - came.keys():
                    note = json.loads(self.store.get(f"{name}-{rank}") or "{}")
                    if note.get("call") == call:
                        came[rank] = note
                if self.store.get(f"{name}-call") != call:
                    raise self._duplicate_launch()
                if len(came) < self.launch.world_size - 1 and not wait.again():
                    raise self._missing(came)
            answer = {"answer": decide([say, *(came[rank]["say"] for rank in sorted(came))])}
        except BaseException as error:
            code = error.exit_code if isinstance(error, FulguriteError) else EXIT_CRASH
            self._publish(name, came, {"refused": str(error), "exit_code": code})
            raise
        self._publish(name, came, answer)
        return answer["answer"]

    def _publish(self, name: str, came: Mapping[int, Mapping[str, Any]], answer: Mapping[str, Any]) -> None:
        self.store.set(f"{name}-answer", json.dumps({"words": [note["word"] for note in came.values()], **answer}))

    def _missing(self, came: Mapping[int, Any]) -> UserError:
        missing = sorted(set(range(1, self.launch.world_size)) - came.keys())
        names = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
        return self._timed_out(f"{names} of {self.launch.world_size}")

    def _timed_out(self, ranks: str) -> UserError:
        return UserError(
            f"{ranks} did not join within {self.timeout:g} s (distributed.rank_timeout_seconds). "
            f"All processes must use the same paths.log_dir on a shared filesystem (looked in {self.store})."
        )

    def _duplicate_launch(self) -> UserError:
        return UserError(
            f"{self.store}: another start of the same command meets there at this moment; give each start a "
            "MASTER_PORT or a paths.log_dir of its own"
        )

    def _follow(self, name: str, say: Any) -> Any:
        word, seen, wait = secrets.token_hex(8), None, _Poll(self.timeout)
        while True:
            call = self.store.get(f"{name}-call")
            if call is not None and call != seen:
                self.store.set(f"{name}-{self.launch.rank}", json.dumps({"call": call, "word": word, "say": say}))
                seen = call
            found = json.loads(self.store.get(f"{name}-answer") or "{}")
            if word in found.get("words", ()):
                break
            if json.loads(self.store.get(f"{name}-{self.launch.rank}") or "{}").get("word", word) != word and seen:
                raise self._duplicate_launch()
            if not wait.again():
                raise self._timed_out("rank 0")
        self.store.delete(f"{name}-{self.launch.rank}")
        if "refused" in found:
            raise RefusedByRankZero(found["refused"], found["exit_code"])
        return found["answer"]


class _Poll:
    """Looks that become rarer, until a time is over."""

    def __init__(self, timeout: float) -> None:
        self.end, self.pause = time.monotonic() + timeout, MIN_POLL_SECONDS

    def again(self) -> bool:
        if time.monotonic() > self.end:
            return False
        time.sleep(self.pause)
        self.pause = min(self.pause * 1.5, MAX_POLL_SECONDS)
        return True


def broadcast_decision(config: DictConfig, name: str, payload: Any, decide: Decide) -> Any:
    """Return what rank 0 decides for all processes that a launcher has started; a process alone decides for itself.

    Args:
        config: With `paths` and `distributed`.
        name: Of the decision.
        payload: Of this rank; plain values.
        decide: As in `Rendezvous.exchange`.

    Raises:
        Exception: As `Rendezvous.exchange`.
    """
    launch = LaunchInfo.current
    if launch is None:
        return decide([payload])
    if Rendezvous.current is None:
        timeout = read_settings(config, Distributed).rank_timeout_seconds
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and launch.launcher == "torchrun":
            store: KeyValueStore = TorchElasticStore(timeout)
        else:
            store = DirectoryStore(Path(str(config.paths.log_dir)) / ".rendezvous" / launch.key)
        Rendezvous.current = Rendezvous(launch, store, timeout)
    return Rendezvous.current.exchange(name, payload, decide)


def close_rendezvous() -> None:
    """Leave no notes behind; rank 0 does so when the others have read them."""
    meeting, Rendezvous.current = Rendezvous.current, None
    if meeting is not None and meeting.launch.rank == 0:
        meeting.store.close()
