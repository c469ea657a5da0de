"""A source is read in the background; files that are half-written and sources that fail change nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback

from fulgurite.compat.idle_hooks import skip_idle_hooks
from fulgurite.live.callback import LiveControl
from fulgurite.live.document.history import read_entries, read_status
from fulgurite.live.document.watcher import Watcher
from tests.support.cost import count_calls
from tests.support.http_server import FileServer, Reply, closed_port
from tests.support.live import At, replace, run, until
from tests.support.servers import real
from tests.support.servers.doubles import double

POLL = 0.01


@contextmanager
def watching(*sources: str | Path) -> Iterator[Watcher]:
    """Watch sources while the block lasts."""
    watcher = Watcher([str(source) for source in sources], POLL)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.close()


def test_a_file_that_is_not_there_yet_is_read_once_it_is_and_through_each_renaming(tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    with watching(path) as watcher:
        for number in range(1, 4):
            replace(path, f"lr_scale: {number}\nstop_after_step: {number}\n")
            received = until(lambda: watcher.inbox and watcher.inbox.popleft())
            assert received.document == {"lr_scale": float(number), "stop_after_step": number}
            assert not received.is_first  # a missing file has counters of 0
        path.unlink()
        time.sleep(5 * POLL)
        assert not watcher.inbox  # an editor may be replacing it
        path.write_text("lr_scale: 9\n")
        assert until(lambda: watcher.inbox and watcher.inbox.popleft()).document == {"lr_scale": 9.0}


def test_a_document_that_is_there_at_the_start_is_the_first(tmp_path: Path) -> None:
    (tmp_path / "live.yaml").write_text("stop_after_step: 3\n")
    with watching(tmp_path / "live.yaml") as watcher:
        assert watcher.inbox[0].is_first


TORN = {
    "": "is empty, so it may be half-written. Write it whole; `{}` removes all edits.",
    "\n": "is empty, so it may be half-written. Write it whole; `{}` removes all edits.",
    "lr_scale: 0.": "does not end with a newline, so it may be half-written. Write it whole; `{}` removes all edits.",
    "lr_scale: [\n": "is not valid YAML",
    "- 1\n": "is a list, not keys with values. Write `key: value`.",
    "1: 2\n": "1: is not a name. Write the key as text.",
    "lr_scale: 1\nlr_scale: 2\n": "the key lr_scale stands twice",
}


@pytest.mark.parametrize("text", TORN)
def test_a_half_written_file_changes_nothing_and_the_next_whole_one_does(text: str, tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text("lr_scale: 0.5\n")
    with watching(path) as watcher:
        watcher.inbox.clear()
        path.write_text(text)
        received = until(lambda: watcher.inbox and watcher.inbox.popleft())
        assert received.document == {"lr_scale": 0.5}
        assert TORN[text] in received.problems[0]
        assert "live.yaml" in received.problems[0]
        replace(path, "lr_scale: 0.1\n")
        assert until(lambda: watcher.inbox and watcher.inbox.popleft()).document == {"lr_scale": 0.1}


def test_bytes_that_are_no_text_and_a_folder_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.mkdir()
    with watching(path) as watcher:
        time.sleep(5 * POLL)
        path.rmdir()
        path.write_bytes(b"\xff\xfe\n")
        assert "UTF-8" in until(lambda: watcher.inbox and watcher.inbox.popleft()).problems[0]


def test_a_server_that_fails_is_asked_again_and_the_last_good_values_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FileServer({"/live.yaml": Reply(b"lr_scale: 0.5")}) as server:  # no newline: a server answers as a whole
        address = server.url.replace("//", "//user:secret-word@") + "live.yaml#max_retry=0&timeout=1&poll_seconds=0.01"
        with watching(address) as watcher:
            assert until(lambda: watcher.inbox and watcher.inbox.popleft()).document == {"lr_scale": 0.5}
            for reply in (Reply(status=500), Reply(b"lr_scale: 0.2", cut=5), Reply(location="http://127.0.0.1:9/")):
                server.replies["/live.yaml"] = reply
                caplog.clear()
                until(lambda: "The run keeps its values" in caplog.text)
            assert not watcher.inbox
            server.replies["/live.yaml"] = Reply(b"lr_scale: 0.1\nmodel.a: 1")
            received = until(lambda: watcher.inbox and watcher.inbox.popleft())
            assert received.document == {"lr_scale": 0.1, "model.a": 1}
    assert "secret-word" not in caplog.text + received.source


@pytest.mark.parametrize("kind", ["consul", "etcd"])
def test_a_key_of_a_store_is_watched(kind: str) -> None:
    files = {"live.yaml": b"stop_after_step: 4\nlr_scale: 0.5"}
    with double(kind, files) as server, watching(f"{server.url}/conf/live.yaml") as watcher:
        received = until(lambda: watcher.inbox and watcher.inbox.popleft())
        assert received.is_first  # whose command an earlier run was given
        server.put("conf/live.yaml", b"lr_scale: .nan")
        assert until(lambda: watcher.inbox and watcher.inbox.popleft()).problems
        server.put("conf/live.yaml", b"stop_after_step: 5")
        received = until(lambda: watcher.inbox and watcher.inbox.popleft())
        assert (received.document, received.is_first) == ({"stop_after_step": 5}, False)


@pytest.mark.slow
def test_a_key_of_a_real_etcd_is_watched_through_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def put(text: str) -> None:
        Etcd3Client(port=port, api_path="/v3/").put("run/live.yaml", text)

    Etcd3Client = pytest.importorskip("etcd3gw").Etcd3Client  # noqa: N806
    port, address = closed_port(), ""
    with real.etcd(tmp_path, port), watching(f"etcd://127.0.0.1:{port}/run/live.yaml#max_retry=0") as watcher:
        address = watcher._sources[0].name
        put("lr_scale: 0.5")
        assert until(lambda: watcher.inbox and watcher.inbox.popleft()).document == {"lr_scale": 0.5}
        put("lr_scale: 0.2")
        assert until(lambda: watcher.inbox and watcher.inbox.popleft()).document == {"lr_scale": 0.2}
        threads = watcher._threads
    until(lambda: not any(thread.is_alive() for thread in threads))  # at the end of a request that waits
    with watching(f"{address}#max_retry=0&timeout=1") as watcher:
        until(lambda: "The run keeps its values" in caplog.text)
        with real.etcd(tmp_path, port):
            assert until(lambda: watcher.inbox and watcher.inbox.popleft(), 60).document == {"lr_scale": 0.2}


def test_of_several_sources_a_later_one_wins(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.json"
    one.write_text("lr_scale: 0.5\npatience: 3\n")
    two.write_text('{"lr_scale": 0.1}\n')
    with watching(one, two) as watcher:
        assert watcher.inbox[-1].document == {"lr_scale": 0.1, "patience": 3}
        two.write_text('{"lr": 1}\n')
        received = until(lambda: len(watcher.inbox) > 2 and watcher.inbox.pop())
        assert received.problems == ["lr=1.0: excludes lr_scale=0.5. Remove one of them."]
        assert received.document == {"lr_scale": 0.1, "patience": 3}


def test_a_running_training_takes_what_stands_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "live.yaml").write_text("stop_after_step: 1\nlr_scale: 2\n")  # the command is left over
    texts = {
        3: "lr_scale: 0.5\nstop_after_step: 1\n",
        5: "lr_scale: 0\nstop_after_step: 2\n",
        9: "lr_scale: 0.5\nstop_after_step: 2\n",
    }
    _, live, trace = run(tmp_path, callbacks=[At(tmp_path, texts)])
    assert [rates[0] for rates in trace.rates] == [0.02] * 4 + [0.005] * 7  # the eleventh step is the last
    assert [edit.batch for edit in live.history] == [0, 4, 10]
    refusals = [entry["refused"] for entry in read_entries(tmp_path / "live.jsonl") if "refused" in entry]
    assert refusals == [["lr_scale=0: is out of range. Set a number above 0."]]
    assert read_status(tmp_path)["state"] == "ended"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live ")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_in_place_of_the_document_blocks_no_edit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "live.yaml"
    with watching(path) as watcher:
        os.mkfifo(path)
        until(lambda: "is no regular file). Put a regular file there." in caplog.text)
        replace(path, "lr_scale: 0.1\n")
        assert until(lambda: watcher.inbox and watcher.inbox.popleft()).document == {"lr_scale": 0.1}


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "live.status.yaml").mkdir()
    (tmp_path / "live.jsonl").mkdir()
    _, _, trace = run(tmp_path, callbacks=[At(tmp_path, {3: "lr_scale: 0.5\n", 5: "{lr_scale: 0.5}\n"})], max_epochs=1)
    assert trace.rates[-1][0] == 0.005
    assert "the status cannot be written" in caplog.text
    assert os.listdir(tmp_path / "live.jsonl") == []  # noqa: PTH208


def test_a_run_without_edits_pays_few_calls_a_batch(tmp_path: Path) -> None:
    def cost(batches: int, *, with_live: bool) -> int:
        idle: Any = LiveControl(tmp_path) if with_live else Callback()
        skip_idle_hooks([idle])  # as every run does
        settings: dict[str, Any] = {"limit_train_batches": batches, "max_epochs": 1, "limit_val_batches": 0}
        return count_calls(lambda: run(tmp_path, live=idle, **settings))

    without, given = (cost(8, with_live=live) - cost(2, with_live=live) for live in (False, True))
    assert given - without <= 4 * 6  # three calls a batch
