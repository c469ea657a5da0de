"""Files and web servers: what a reader returns, what it refuses, and how often it asks."""

from __future__ import annotations

import copy
import os
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from fulgurite.sources.reader import MAX_BYTES, ReadOptions, SourceError, open_reader, split_options
from fulgurite.sources.transports import files
from tests.support.http_server import FileServer, Reply, closed_port, silent_port

QUICK = ReadOptions(timeout=1.0, max_retry=1, retry_delay=0.0, poll_seconds=0.02)


def test_a_file_a_folder_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "big.yaml").write_text("a: 1")
    found = None
    for address in (str(tmp_path), f"file://{tmp_path}"):
        reader = open_reader(address)
        found = reader.read("model/big.yaml")
        assert found is not None
        assert found.data == b"a: 1"
        assert reader.read("model/absent.yaml") is None
        assert reader.read("absent/x.yaml") is None
        assert reader.list("") == ["model/"]
        assert reader.list("model") == ["big.yaml"]
        assert reader.list("absent") == []
    assert open_reader(str(tmp_path / "model" / "big.yaml")).read("") == found


def test_a_path_that_leaves_the_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="leaves the source"):
        open_reader(str(tmp_path)).read("../etc/passwd")


def test_waiting_sees_a_file_that_appears_is_replaced_and_is_removed(tmp_path: Path) -> None:
    reader, file = open_reader(str(tmp_path)), tmp_path / "live.yaml"
    assert reader.wait("live.yaml", None, 0.0) is False
    timer = threading.Timer(0.05, file.write_text, ("a: 1",))
    timer.start()
    assert reader.wait("live.yaml", None, 5.0)
    timer.join()
    found = reader.read("live.yaml")
    assert found is not None
    (tmp_path / "new").write_text("a: 2")
    os.replace(tmp_path / "new", file)  # noqa: PTH105 - as editors do
    assert reader.wait("live.yaml", found.version, 5.0)
    file.unlink()
    assert reader.wait("live.yaml", found.version, 5.0)


@pytest.mark.skipif(find_spec("watchfiles") is None, reason="watchfiles is not installed")
def test_an_event_of_the_folder_ends_a_wait_before_the_next_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "POLL_SECONDS", 300.0)
    reader, file = open_reader(f"file://{tmp_path}"), tmp_path / "live.yaml"
    seen: list[bool] = []
    waiting = threading.Thread(target=lambda: seen.append(reader.wait("live.yaml", None, 300.0)), daemon=True)
    waiting.start()
    for number in range(600):  # the first events may come before the folder is watched
        if not waiting.is_alive():
            break
        file.write_text(f"a: {number}\n")
        waiting.join(0.2)
    assert seen == [True]


def test_without_watchfiles_a_file_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    reader, file = open_reader(str(tmp_path)), tmp_path / "live.yaml"
    timer = threading.Timer(0.05, file.write_text, ("a: 1",))
    timer.start()
    assert reader.wait("live.yaml", None, 60.0)
    timer.join()


def test_closing_ends_a_wait(tmp_path: Path) -> None:
    reader = open_reader(str(tmp_path))
    threading.Timer(0.05, reader.close).start()
    assert reader.wait("x", None, 60.0) is False


def test_http_reads_lists_and_knows_what_is_not_there() -> None:
    page = b'<a href="../">up</a> <a href="big.yaml">x</a> <a href="sub%20dir/">y</a> <a href="?C=N">z</a>'
    replies = {"/conf/big.yaml": Reply(b"a: 1"), "/conf/": Reply(page, headers={"Content-Type": "text/html"})}
    with FileServer(replies) as server:
        reader = open_reader(f"{server.url}conf/", QUICK)
        found = reader.read("big.yaml")
        assert found is not None
        assert found.data == b"a: 1"
        assert reader.read("absent.yaml") is None
        assert reader.list("") == ["big.yaml", "sub dir/"]
        assert reader.list("absent") == []
        assert not reader.wait("big.yaml", found.version, 0.03)
        server.replies["/conf/big.yaml"] = Reply(b"a: 2")
        assert reader.wait("big.yaml", found.version, 5.0)


@pytest.mark.parametrize(
    ("name", "etag"), [("Content-Type", "ETag"), ("Content-type", "Etag"), ("content-type", "etag")]
)
def test_names_of_headers_have_any_case_and_a_root_is_listed(name: str, etag: str) -> None:
    page = Reply(b'<a href="big.yaml">x</a>', headers={name: "text/html; charset=utf-8", etag: '"1"'})
    with FileServer({"/": page}) as server:
        reader = open_reader(server.url.rstrip("/"), QUICK)
        assert reader.list("") == ["big.yaml"]
        found = reader.read("")
        assert found is not None
        assert found.version == '"1"'


@pytest.mark.parametrize(
    ("reply", "problem", "num_requests"),
    [
        (Reply(status=500), r"answered 500 \(2 requests\)", 2),
        (Reply(status=401), r"refused the request \(401\)", 1),
        (Reply(status=403), r"refused the request \(403\)", 1),
        (Reply(b"x" * 100, cut=10), r"ended after 10 of 100 bytes \(2 requests\)", 2),
        (Reply(location="file:///etc/passwd"), "redirects in a circle, or to an address that is not http", 1),
        (Reply(delay=2.0), r"did not answer within 0.2 s", 2),
        (Reply(b"x" * 20_000, pause=0.05), r"did not answer within 0.2 s", 2),
        (Reply(b"x" * (MAX_BYTES + 1)), "has more than", 1),
    ],
)
def test_a_faulty_server_is_one_line_with_the_source_and_the_key(reply: Reply, problem: str, num_requests: int) -> None:
    with FileServer({"/c/a.yaml": reply}) as server:
        reader = open_reader(f"{server.url}c#timeout=0.2&max_retry=1&retry_delay=0")
        with pytest.raises(SourceError, match=problem) as caught:
            reader.read("a.yaml")
        assert len(server.requests) == num_requests
        assert str(caught.value).startswith(f"{server.url}c/a.yaml: ")
        assert "\n" not in str(caught.value)
        assert str(copy.copy(caught.value)) == str(caught.value)  # as pickle does


def test_control_characters_of_a_server_steer_no_terminal() -> None:
    assert str(SourceError("http://host/\x1b[2Ja", "failed (\x07)", "Start it")) == (
        r"http://host/\x1b[2Ja: failed (\x07). Start it."
    )


def test_a_server_that_is_down_or_silent_is_one_line() -> None:
    with pytest.raises(SourceError, match="Connection refused"):
        open_reader(f"http://127.0.0.1:{closed_port()}/", QUICK).read("a")
    with silent_port() as port, pytest.raises(SourceError, match=r"did not answer within 0\.1 s"):
        open_reader(f"http://127.0.0.1:{port}/#timeout=0.1&max_retry=0").read("a")


def test_a_password_is_sent_but_not_shown() -> None:
    with FileServer({"/a?token=canary-4711": Reply(status=401)}) as server:
        reader = open_reader(server.url.replace("://", "://me:canary-4711@") + "?token=canary-4711", QUICK)
        with pytest.raises(SourceError) as caught:
            reader.read("a")
    assert "canary" not in f"{caught.value}{reader.name}"


def test_options_of_an_address() -> None:
    address, options = split_options("http://h/x#timeout=3&stop_on_failure=false", ReadOptions())
    assert (address, options.timeout, options.stop_on_failure) == ("http://h/x", 3.0, False)
    for wrong in ("timeout=x", "tmeout=3", "max_retry=-1", "max_retry=1.5", "timeout=nan", "stop_on_failure=maybe"):
        with pytest.raises(SourceError, match="http://h/x#"):
            split_options(f"http://h/x#{wrong}", ReadOptions())
    with pytest.raises(SourceError, match="gopher:// is not known"):
        open_reader("gopher://h/x").read("y")
