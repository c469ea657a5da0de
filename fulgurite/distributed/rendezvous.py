"""Rendezvous of externally launched ranks, before the process group exists.

The run directory does not exist until rank 0 has reserved it. Ranks exchange notes through torchrun's store, or through
files below `paths.log_dir`. Nonces keep notes of an earlier launch from being taken for answers:

    <round>-lead      rank 0       its nonce
    <round>-<rank>    other ranks  the lead nonce they saw, their own nonce, their payload
    <round>-decision  rank 0       the nonces of all ranks, and the decision
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
from typing import Any

from omegaconf import DictConfig

from fulgurite.config.schema import Distributed, read_settings
from fulgurite.core.context import current_context
from fulgurite.core.errors import EXIT_CRASH, FulguriteError, RefusedByRankZero, UserError
from fulgurite.core.files import make_folder, write_atomic
from fulgurite.distributed.launch_env import LaunchInfo, current_launch
from fulgurite.distributed.reachability import wait_for_master

MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.01, 0.2
CLOSE_SECONDS = 5.0  # for the other ranks to read the last decision
Decide = Callable[[list[Any]], Any]


class DirectoryStore:
    """Notes as files in a directory on a shared filesystem; the directory is created."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        remedy = "Make it writable, or set paths.log_dir=<folder>"
        make_folder(folder, f"{folder}: the ranks' rendezvous directory", remedy)

    def __str__(self) -> str:
        return str(self.folder)

    def set(self, name: str, text: str) -> None:
        """Write the file atomically."""
        write_atomic(self.folder / name, text)

    def get(self, name: str) -> str | None:
        """Read the file."""
        with suppress(FileNotFoundError):
            return (self.folder / name).read_text()
        return None

    def delete(self, name: str) -> None:
        """Delete the file."""
        (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the directory once all ranks have read the last decision."""
        poll = _Poll(CLOSE_SECONDS)
        while any(self.folder.glob("*-[0-9]*")) and poll.sleep():
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # another launch uses a directory beside it
            self.folder.parent.rmdir()


class TorchElasticStore:
    """Notes in the store of torchrun's agent."""

    def __init__(self, timeout: float) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # not exported

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
        """Delete the key."""
        self.store.delete_key(name)

    def close(self) -> None:
        """Do nothing: the store ends with torchrun."""


KeyValueStore = DirectoryStore | TorchElasticStore


class Rendezvous:
    """Exchange payloads between all ranks of a launch, and decide on rank 0.

    Each exchange waits at most `timeout` seconds for the other ranks.
    """

    def __init__(self, launch: LaunchInfo, store: KeyValueStore, timeout: float) -> None:
        self.launch, self.store, self.timeout = launch, store, timeout
        self.rounds = 0

    def exchange(self, name: str, payload: Any, decide: Decide) -> Any:
        """Return rank 0's decision on every rank.

        Args:
            name: Of the decision; it names the notes.
            payload: Of this rank; plain values.
            decide: Called on rank 0 with the payloads in rank order; returns plain values. What it raises is raised on
                rank 0, and as RefusedByRankZero on the others.
        """
        self.rounds += 1
        name = f"{self.rounds}-{name}"
        return self._lead(name, payload, decide) if self.launch.rank == 0 else self._follow(name, payload)

    def _lead(self, name: str, payload: Any, decide: Decide) -> Any:
        nonce = secrets.token_hex(8)
        self.store.set(f"{name}-lead", nonce)
        notes: dict[int, dict[str, Any]] = {}
        others, poll = range(1, self.launch.world_size), _Poll(self.timeout)
        try:
            while len(notes) < len(others):
                for rank in set(others) - notes.keys():
                    note = json.loads(self.store.get(f"{name}-{rank}") or "{}")
                    if note.get("lead") == nonce:
                        notes[rank] = note
                if self.store.get(f"{name}-lead") != nonce:
                    raise self._duplicate_launch()
                if len(notes) < len(others) and not poll.sleep():
                    missing = sorted(set(others) - notes.keys())
                    names = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
                    raise self._timed_out(f"{names} of {self.launch.world_size}")
            decision = decide([payload, *(notes[rank]["payload"] for rank in others)])
        except BaseException as error:
            code = error.exit_code if isinstance(error, FulguriteError) else EXIT_CRASH
            self._publish(name, notes, {"refused": str(error), "exit_code": code})
            raise
        self._publish(name, notes, {"decision": decision})
        return decision

    def _publish(self, name: str, notes: Mapping[int, Mapping[str, Any]], content: Mapping[str, Any]) -> None:
        nonces = [note["nonce"] for note in notes.values()]
        self.store.set(f"{name}-decision", json.dumps({"nonces": nonces, **content}))

    def _follow(self, name: str, payload: Any) -> Any:
        nonce, seen, poll = secrets.token_hex(8), None, _Poll(self.timeout)
        own = f"{name}-{self.launch.rank}"
        while True:
            lead = self.store.get(f"{name}-lead")
            if lead is not None and lead != seen:
                self.store.set(own, json.dumps({"lead": lead, "nonce": nonce, "payload": payload}))
                seen = lead
            found = json.loads(self.store.get(f"{name}-decision") or "{}")
            if nonce in found.get("nonces", ()):
                break
            if seen and json.loads(self.store.get(own) or "{}").get("nonce", nonce) != nonce:
                raise self._duplicate_launch()
            if not poll.sleep():
                raise self._timed_out("rank 0")
        self.store.delete(own)
        if "refused" in found:
            raise RefusedByRankZero(found["refused"], found["exit_code"])
        return found["decision"]

    def _timed_out(self, ranks: str) -> UserError:
        return UserError(
            f"{ranks} did not join within {self.timeout:g} s (distributed.rank_timeout_seconds). "
            f"All processes must use the same paths.log_dir on a shared filesystem (looked in {self.store})."
        )

    def _duplicate_launch(self) -> UserError:
        return UserError(
            f"{self.store}: another launch of the same command uses this rendezvous. "
            "Give each launch its own MASTER_PORT or paths.log_dir."
        )


class _Poll:
    """Poll with growing pauses until a timeout in seconds."""

    def __init__(self, timeout: float) -> None:
        self.end, self.pause = time.monotonic() + timeout, MIN_POLL_SECONDS

    def sleep(self) -> bool:
        """Sleep until the next poll, or return False after the timeout."""
        if time.monotonic() > self.end:
            return False
        time.sleep(self.pause)
        self.pause = min(self.pause * 1.5, MAX_POLL_SECONDS)
        return True


def broadcast_decision(config: DictConfig, name: str, payload: Any, decide: Decide) -> Any:
    """Return rank 0's decision on every rank.

    Without an external launcher, `decide` is called locally.
    """
    launch = current_launch()
    if launch is None:
        return decide([payload])
    context = current_context()
    if context.rendezvous is None:
        timeout = read_settings(config, Distributed).rank_timeout_seconds
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and launch.launcher == "torchrun":
            store: KeyValueStore = TorchElasticStore(timeout)
        else:
            store = DirectoryStore(Path(str(config.paths.log_dir)) / ".rendezvous" / launch.key)
        context.rendezvous = Rendezvous(launch, store, timeout)
    return context.rendezvous.exchange(name, payload, decide)


def rank_zero_decides(config: DictConfig, name: str, decide: Callable[[], Any]) -> Any:
    """Return rank 0's decision, made without payloads, on every rank."""
    return broadcast_decision(config, name, None, lambda _: decide())


def barrier(config: DictConfig, name: str) -> None:
    """Wait until all ranks that a launcher started have called this."""
    broadcast_decision(config, name, None, lambda _: None)


def close_rendezvous() -> None:
    """Delete the notes on rank 0, once the other ranks have read them."""
    context = current_context()
    rendezvous, context.rendezvous = context.rendezvous, None
    if rendezvous is not None and rendezvous.launch.rank == 0:
        rendezvous.store.close()
