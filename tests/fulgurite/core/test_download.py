"""A download is complete, verified and secure, or one line names why every mirror failed."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fulgurite.core.download import download
from fulgurite.core.errors import UserError
from fulgurite.core.files import file_lock, open_atomic, sha256_of, write_atomic
from tests.support.http_server import FileServer, Reply, closed_port, make_certificate
from tests.support.project import ROOT

CONTENT = bytes(range(256)) * 80  # 20,480 bytes
SUM = hashlib.sha256(CONTENT).hexdigest()


def _start_download(url: str, target: Path) -> subprocess.Popen[str]:
    code = f"from fulgurite.core.download import download; download({url!r}, {str(target)!r}, {SUM!r})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, stderr=subprocess.PIPE)


def test_right_file_arrives_once_and_leaves_no_part(tmp_path: Path) -> None:
    with FileServer({"/file": Reply(CONTENT)}) as server:
        target = download(server.url + "file", tmp_path / "new" / "file", SUM)
        again = download(server.url + "file", tmp_path / "new" / "file", SUM)
    assert again == target == tmp_path / "new" / "file"
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/file", None)]
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == ["file"]


def test_wrong_sum_goes_to_the_next_mirror(tmp_path: Path) -> None:
    with FileServer({"/bad": Reply(CONTENT[::-1]), "/good": Reply(CONTENT)}) as server:
        target = download([server.url + "bad", server.url + "good"], tmp_path / "file", SUM.upper())
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/bad", None), ("/good", None)], "nothing of the wrong file may be kept and continued"


def test_every_mirror_and_its_reason_stand_in_one_line(tmp_path: Path) -> None:
    wrong = hashlib.sha256(b"wrong").hexdigest()
    with FileServer({"/bad": Reply(b"wrong"), "/gone": Reply(status=410)}) as server:
        mirrors = [server.url + "bad", server.url + "gone", server.url + "none?token=canary", "http://example.com/x"]
        with pytest.raises(UserError, match="every mirror failed") as caught:
            download(mirrors, tmp_path / "file", SUM)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{server.url}bad (wrong sha256 {wrong[:12]}..., expected {SUM[:12]}...)" in message
    assert f"{server.url}gone (410 Gone)" in message
    assert f"{server.url}none (404 Not Found)" in message
    assert "http://example.com/x (http://example.com/x is not https)" in message
    assert message.endswith(f"Put the file at {tmp_path / 'file'} (sha256 {SUM}).")
    assert "canary" not in message
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / "file.part").exists()


def test_a_cut_file_is_continued_where_it_stopped(tmp_path: Path) -> None:
    with FileServer({"/file": Reply(CONTENT, cut=8_000)}) as server:
        target = download(server.url + "file", tmp_path / "file", SUM)
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/file", None), ("/file", "bytes=8000-"), ("/file", "bytes=16000-")]


def test_a_part_of_an_earlier_call_is_continued_on_any_mirror(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:5_000])
    with FileServer({"/file": Reply(CONTENT)}) as server:
        download([server.url + "gone", server.url + "file"], tmp_path / "file", SUM)
    assert server.requests == [("/gone", "bytes=5000-"), ("/file", "bytes=5000-")]
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 5_000, b"x" * 30_000, CONTENT], ids=["wrong", "too long", "complete"])
def test_a_part_of_another_file_costs_one_request_at_most(tmp_path: Path, part: bytes) -> None:
    (tmp_path / "file.part").write_bytes(part)
    with FileServer({"/file": Reply(CONTENT)}) as server:
        download(server.url + "file", tmp_path / "file", SUM)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == (0 if part == CONTENT else 2)


def test_a_server_without_ranges_starts_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * 5_000)
    with FileServer({"/file": Reply(CONTENT, ranges=False)}) as server:
        download(server.url + "file", tmp_path / "file", SUM)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_cut_file_without_a_sum_is_refused_and_never_pieced_together(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.part").write_bytes(b"of another model")
    with FileServer({"/model.ckpt": Reply(CONTENT, cut=8_000)}) as server:
        with pytest.raises(UserError, match=r"interrupted after 8000 of 20480 bytes"):
            download(server.url + "model.ckpt", tmp_path / "model.ckpt")
        assert not (tmp_path / "model.ckpt").exists()
        server.replies["/model.ckpt"] = Reply(CONTENT)
        download(server.url + "model.ckpt", tmp_path / "model.ckpt")
    assert (tmp_path / "model.ckpt").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, None]


def test_404_on_the_first_mirror_goes_to_the_second(tmp_path: Path) -> None:
    with FileServer({"/file": Reply(CONTENT)}) as server:
        download([server.url + "gone", server.url + "file"], tmp_path / "file", SUM)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_connection_refused_everywhere_names_every_mirror(tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1:{closed_port()}/file" for _ in range(2)]
    with pytest.raises(UserError, match="Connection refused") as caught:
        download(urls, tmp_path / "file", SUM)
    assert all(f"{url} (Connection refused)" in str(caught.value) for url in urls)
    assert caught.value.exit_code == 2


def test_a_silent_server_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    with FileServer({"/slow": Reply(CONTENT, delay=2), "/file": Reply(CONTENT)}) as server:
        download([server.url + "slow", server.url + "file"], tmp_path / "file", SUM, timeout=0.2)
        assert [path for path, _ in server.requests] == ["/slow", "/file"]
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("elsewhere", ["http://example.com/file", "ftp://127.0.0.1/file", "file:///etc/hostname"])
def test_a_redirect_to_what_is_not_https_is_refused(tmp_path: Path, elsewhere: str) -> None:
    with (
        FileServer({"/file": Reply(location=elsewhere)}) as server,
        pytest.raises(UserError, match=f"({elsewhere} is not https|302 Found.*not allowed)"),
    ):
        download(server.url + "file", tmp_path / "file", SUM)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_https_is_never_left_for_http_even_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, crt = make_certificate(tmp_path)
    with FileServer({"/file": Reply(CONTENT)}) as plain, FileServer({"/file": Reply(CONTENT)}, pem) as secure:
        with pytest.raises(UserError, match=r"(?i)certificate verify failed"):
            download(secure.url + "file", tmp_path / "unknown", SUM)
        monkeypatch.setenv("SSL_CERT_FILE", str(crt))
        assert download(secure.url + "file", tmp_path / "file", SUM).read_bytes() == CONTENT
        secure.replies["/moved"] = Reply(location=plain.url + "file")
        with pytest.raises(UserError, match=f"redirects from https to {plain.url}file"):
            download(secure.url + "moved", tmp_path / "other", SUM)
        assert plain.requests == []


def test_a_redirect_on_this_machine_is_followed_past_any_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with FileServer({"/new": Reply(CONTENT)}) as server:
        server.replies["/old"] = Reply(location=server.url + "new")
        download(server.url + "old", tmp_path / "file", SUM)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with FileServer({"/file": Reply(CONTENT)}) as server, pytest.raises(UserError, match="not writable") as caught:
        download(server.url + "file", tmp_path / "taken" / "file", SUM)
    assert str(tmp_path / "taken" / "file") in str(caught.value)
    assert server.requests == []


def test_messages_never_show_what_a_url_keeps_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        FileServer({"/file?key=canary": Reply(CONTENT)}) as server,
        caplog.at_level(logging.INFO, "fulgurite.core.download"),
    ):
        download(server.url + "file?key=canary", tmp_path / "file", SUM)
        with pytest.raises(UserError, match="the URL contains a user or password") as caught:
            download("https://user:canary@127.0.0.1/file", tmp_path / "other", SUM)
    assert f"downloading {server.url}file" in caplog.text
    assert "canary" not in caplog.text + str(caught.value)


def test_many_processes_download_once_even_when_one_is_killed(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with FileServer({"/file": Reply(CONTENT, pause=0.05)}) as server:
        first = _start_download(server.url + "file", target)
        while not (tmp_path / "file.part").exists() or (tmp_path / "file.part").stat().st_size < 3_000:
            time.sleep(0.01)
            assert first.poll() is None, first.stderr and first.stderr.read()
        others = [_start_download(server.url + "file", target) for _ in range(3)]
        first.send_signal(signal.SIGKILL)
        errors = [process.communicate(timeout=60)[1] for process in [first, *others]]
    assert [process.returncode for process in others] == [0, 0, 0], errors
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 2, "the request of the killed process and one that resumes"
    assert server.requests[1][1] is not None


def test_a_lock_held_too_long_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    code = (
        "import time; from fulgurite.core.files import file_lock\n"
        f"with file_lock({str(path)!r}): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with (
            pytest.raises(UserError, match=r"x\.lock: locked by another process for 0\.1 s"),
            file_lock(path, 0.1),
        ):
            pass
        holder.kill()
    with file_lock(path, 5):  # freed by the death of its holder
        assert path.exists()


def test_an_atomic_write_shows_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "run.json"

    def fail_half_way() -> None:
        with open_atomic(path) as file:
            file.write(b"new")
            assert path.read_text(encoding="utf-8") == "ångström"
            raise RuntimeError("half way")

    write_atomic(path, "ångström")
    assert path.read_bytes() == "ångström".encode()
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_text(encoding="utf-8") == "ångström"
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path], "no temporary file may stay"


def test_an_atomic_write_gives_the_modes_that_a_plain_write_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_sha256_of_a_file_longer_than_a_block(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_base_level_imports_no_network_and_no_torch() -> None:
    code = (
        "import sys, fulgurite.core.download; print(*{'torch', 'urllib.request', 'ssl', 'filelock'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
