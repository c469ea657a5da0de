"""A block that defers signals, or code that swallows the first, is ended by the second."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from fulgurite.core.errors import Interrupted
from fulgurite.shutdown import signals
from fulgurite.shutdown.signals import SignalHandler

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[SignalHandler]:
    """Install a handler that takes each signal for one of its own."""
    monkeypatch.setattr(signals, "DEBOUNCE_SECONDS", 0.0)
    handler = SignalHandler()
    handler.install()
    yield handler
    handler.restore()


def send(number: int = signal.SIGTERM) -> None:
    """Send a signal to this process, which handles it before the next statement."""
    os.kill(os.getpid(), number)


def send_deferred(handler: SignalHandler, numbers: list[int]) -> int:
    """Send signals in a block that defers them, and return how many it got to before it was ended."""
    survived = 0
    try:
        with handler.deferred():
            for number in numbers:
                send(number)
                survived += 1
    except Interrupted:
        return survived
    raise AssertionError("the end of the block raises nothing")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_a_block_that_defers_the_first(handler: SignalHandler, first: int) -> None:
    assert send_deferred(handler, [first, signal.SIGTERM]) == 1
    assert handler.requested == first


def test_the_first_signal_waits_for_the_end_of_the_block(handler: SignalHandler) -> None:
    assert send_deferred(handler, [signal.SIGTERM]) == 1


def test_a_block_after_the_first_signal_is_ended_by_its_own_second(handler: SignalHandler) -> None:
    """The sweep waits for its jobs in such a block: a signal kills them, another one ends the wait."""
    with pytest.raises(Interrupted):
        send()
    assert send_deferred(handler, [signal.SIGTERM] * 2) == 1


def test_two_signals_at_once_are_one(handler: SignalHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "DEBOUNCE_SECONDS", 60.0)
    assert send_deferred(handler, [signal.SIGTERM] * 2) == 2


def test_code_that_swallows_the_exception_is_interrupted_again(handler: SignalHandler) -> None:
    for _ in range(2):
        with pytest.raises(Interrupted):
            send()
