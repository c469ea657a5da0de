"""IDX files are downloaded once, checked, repaired and mapped into memory."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fulgurite.core.errors import UserError
from fulgurite.data.idx import MARKER, is_prepared, map_idx
from src.data.mnist import MNISTDataModule
from src.data.mnist_files import DATASETS
from tests.support.cli import WARM
from tests.support.http_server import FileServer, Reply, closed_port
from tests.support.tiny_mnist import NAMES, idx_bytes, prepare_tiny, tiny_arrays, tiny_dataset


@pytest.fixture
def tiny_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server that publishes a tiny data set, which `data=mnist` then means."""
    with FileServer({}) as server:
        family, files = tiny_dataset(server.url)
        server.replies.update({f"/{name}": Reply(content) for name, content in files.items()})
        monkeypatch.setitem(DATASETS, "mnist", family)
        yield server


def _tiny(folder: Path, **changes: Any) -> MNISTDataModule:
    arguments: dict[str, Any] = {"val_size": 40, "batch_size": 16, **changes}
    return MNISTDataModule("mnist", str(folder), **arguments)


def test_preparing_downloads_unpacks_marks_and_then_does_nothing(tmp_path: Path, tiny_server: FileServer) -> None:
    data = _tiny(tmp_path)
    data.prepare_data()
    assert sorted(path for path, _ in tiny_server.requests) == sorted(f"/{name}.gz" for name in NAMES)
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {*NAMES, MARKER}
    for name, array in tiny_arrays().items():
        assert (tmp_path / name).read_bytes() == idx_bytes(array)
    assert json.loads((tmp_path / MARKER).read_bytes()).keys() == set(NAMES)
    tiny_server.replies.clear()
    data.prepare_data()
    assert len(tiny_server.requests) == 4


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "gone", "no mark", "torn mark", "killed"])
def test_damaged_prepared_files_are_archived_and_replaced(
    tmp_path: Path, tiny_server: FileServer, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = _tiny(tmp_path)
    data.prepare_data()
    victim, mark = tmp_path / NAMES[0], tmp_path / MARKER
    whole = victim.read_bytes()
    if damage == "cut":
        victim.write_bytes(whole[:-100])
    elif damage == "longer":
        victim.write_bytes(whole + b"x")
    elif damage == "flipped":
        victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "gone":
        victim.unlink()
    elif damage == "no mark":
        mark.unlink()
    elif damage == "torn mark":
        mark.write_bytes(mark.read_bytes()[:50])
    else:
        mark.unlink()
        victim.rename(tmp_path / f".{NAMES[0]}.0badcafe.tmp")
    broken = victim.read_bytes() if victim.exists() else None
    data.prepare_data()
    assert victim.read_bytes() == whole
    aside = list(tmp_path.glob("*.corrupt-*"))
    assert [path.read_bytes() for path in aside] == ([broken] if damage in {"cut", "longer", "flipped"} else [])
    assert len([line for line in caplog.messages if "corrupt" in line]) == len(aside)
    assert all(f"{victim}: the checksum is wrong. Renamed to {path.name}" in caplog.text for path in aside)
    assert len(tiny_server.requests) == (4 if "mark" in damage else 5), "only what is broken is fetched again"
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_copied_folder_with_other_mtimes_is_prepared(tmp_path: Path, tiny_server: FileServer) -> None:
    data = _tiny(tmp_path)
    data.prepare_data()
    os.utime(tmp_path / NAMES[0], (1, 1))
    assert is_prepared(tmp_path, DATASETS["mnist"].files)


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "unpacked"])
def test_a_local_folder_is_used_before_the_network(tmp_path: Path, tiny_server: FileServer, packed: bool) -> None:
    local = tmp_path / "local"
    local.mkdir()
    for name, array in tiny_arrays().items():
        if packed:
            (local / f"{name}.gz").write_bytes(tiny_server.replies[f"/{name}.gz"].body)
        else:
            (local / name).write_bytes(idx_bytes(array))
    before = sorted(local.iterdir())
    _tiny(tmp_path / "data", local_dirs=[str(tmp_path / "absent"), str(local)]).prepare_data()
    assert tiny_server.requests == []
    assert is_prepared(tmp_path / "data", DATASETS["mnist"].files)
    assert sorted(local.iterdir()) == before


def test_a_wrong_local_file_is_reported_and_the_network_is_used(
    tmp_path: Path, tiny_server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / f"{NAMES[0]}.gz").write_bytes(tiny_server.replies[f"/{NAMES[0]}.gz"].body[:1000])
    (local / NAMES[1]).write_bytes(b"another file")
    _tiny(tmp_path / "data", local_dirs=[str(local)]).prepare_data()
    assert len(tiny_server.requests) == 4
    assert f"{local / NAMES[0]}.gz: skipped, it cannot be read" in caplog.text
    assert f"{local / NAMES[1]}: skipped, its sha256 is" in caplog.text


def test_files_put_into_the_folder_by_hand_are_used(tmp_path: Path, tiny_server: FileServer) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.gz").write_bytes(tiny_server.replies[f"/{name}.gz"].body)
    _tiny(tmp_path).prepare_data()
    assert tiny_server.requests == []


def test_a_broken_file_copied_by_hand_is_archived_and_downloaded_once(
    tmp_path: Path, tiny_server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    packed = tmp_path / f"{NAMES[0]}.gz"
    packed.write_bytes(tiny_server.replies[f"/{NAMES[0]}.gz"].body[:1000])
    _tiny(tmp_path).prepare_data()
    assert len(tiny_server.requests) == 4
    (aside,) = tmp_path.glob(f"{NAMES[0]}.gz.corrupt-*")
    assert aside.stat().st_size == 1000
    assert f"{packed}: it cannot be unpacked. Renamed to {aside.name}" in caplog.text


def test_four_processes_prepare_once_even_when_one_is_killed(tmp_path: Path, tiny_server: FileServer) -> None:
    tiny_server.replies[f"/{NAMES[0]}.gz"].pause = 0.005  # some 150 pieces
    processes = [WARM.Process(target=prepare_tiny, args=(tmp_path, tiny_server.url)) for _ in range(4)]
    killed, *others = processes
    killed.start()
    part = tmp_path / f"{NAMES[0]}.gz.part"
    while not part.exists() or part.stat().st_size < 3_000:
        assert killed.exitcode is None
        time.sleep(0.002)
    for process in others:
        process.start()
    killed.kill()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0, 0, 0]
    assert is_prepared(tmp_path, DATASETS["mnist"].files)
    for name, array in tiny_arrays().items():
        assert (tmp_path / name).read_bytes() == idx_bytes(array)
    asked = [path for path, _ in tiny_server.requests]
    assert asked == [f"/{name}.gz" for name in (NAMES[0], *NAMES)], "each file once, the killed one's goes on"
    assert tiny_server.requests[1][1] is not None


def test_no_network_is_reported_with_the_path_to_copy_the_file_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, _ = tiny_dataset(f"http://127.0.0.1:{closed_port()}/", f"http://127.0.0.1:{closed_port()}/mirror/")
    monkeypatch.setitem(DATASETS, "mnist", family)
    with pytest.raises(UserError, match="every mirror failed") as caught:
        _tiny(tmp_path).prepare_data()
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("(Connection refused)") == 2
    assert f"Put the file at {tmp_path / NAMES[0]}.gz" in message
    assert not is_prepared(tmp_path, family.files)


def test_a_folder_that_cannot_be_written_names_the_option(tmp_path: Path, tiny_server: FileServer) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"data\.data_dir=.*file/mnist: cannot be written .*paths\.data_dir=") as caught:
        _tiny(tmp_path / "file" / "mnist").prepare_data()
    assert "\n" not in str(caught.value)
    assert tiny_server.requests == []


def test_reading_an_unprepared_file_is_refused(tmp_path: Path, tiny_server: FileServer) -> None:
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte: cannot be read as IDX .*prepare_data"):
        _tiny(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x00\x00\x08\x03\x00\x00", "header is truncated"),
        (b"\x00\x00\x0d\x01" + b"\0" * 8, "not an IDX"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(UserError, match=message):
        map_idx(tmp_path / "images")
