"""Watching a file: renames, editors, links, half-written and missing files, with watchfiles and without."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fulgurite.core.errors import UserError
from fulgurite.core.files import write_atomic
from fulgurite.store import FileLoader, Store
from tests.support.store_loader import wait_until


@pytest.fixture(params=["watchfiles", "polling"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a config that is watched by the library, or by polling where it is not installed."""
    if request.param == "polling":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    path = tmp_path / "live.yaml"
    path.write_text("lr: 1\n")
    return path


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    """Return a store that watches the file."""
    with Store(FileLoader(file, name="live.yaml", poll_seconds=0.02)).load_watch() as store:
        yield store


def failures(store: Store) -> int:
    return store.metrics.stats("root", "live.yaml").counts["failure"]


def successes(store: Store) -> int:
    return store.metrics.stats("root", "live.yaml").counts["success"]


def reads(store: Store, number: int) -> Callable[[], bool]:
    return lambda: store.get("lr") == number


def test_edits_in_place_and_by_rename_are_seen_one_after_the_other(store: Store, file: Path) -> None:
    for number in range(2, 6):
        if number % 2:
            file.write_text(f"lr: {number}\n")
        else:
            write_atomic(file, f"lr: {number}\n")
        wait_until(reads(store, number))
    assert failures(store) == 0


def test_an_editor_that_moves_the_old_file_away_is_followed(store: Store, file: Path) -> None:
    for number in (2, 3):
        file.rename(file.with_name("live.yaml~"))
        file.write_text(f"lr: {number}\n")
        wait_until(reads(store, number))


def test_a_link_that_gets_another_target_is_followed(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"version{number}").mkdir()
        (tmp_path / f"version{number}" / "live.yaml").write_text(f"lr: {number}\n")
    data, path = tmp_path / "..data", tmp_path / "live.yaml"  # as a ConfigMap of Kubernetes
    data.symlink_to("version1")
    path.symlink_to("..data/live.yaml")
    with Store(FileLoader(path, poll_seconds=0.02)).load_watch() as store:
        (tmp_path / "new").symlink_to("version2")
        (tmp_path / "new").rename(data)
        wait_until(lambda: store.get("lr") == 2)


@pytest.mark.parametrize("torn", ["", "lr: 0.", "lr: [", "- a\n", "lr: 1\nlr: 2\n", "lr: \udcff\n"])
def test_a_half_written_or_broken_file_keeps_the_last_good_values(
    torn: str, store: Store, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(torn.encode(errors="surrogateescape"))
    wait_until(lambda: failures(store))
    assert store.snapshot().as_dict() == {"lr": 1}
    wait_until(lambda: caplog.messages)
    assert all("live.yaml" in message and "\n" not in message for message in caplog.messages)
    file.write_text("lr: 2\n")
    wait_until(lambda: store.get("lr") == 2)


def test_a_file_that_vanishes_and_comes_back_is_watched_on(
    store: Store, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.unlink()
    wait_until(lambda: failures(store))
    assert store.get("lr") == 1
    wait_until(lambda: caplog.messages)
    assert "live.yaml: does not exist. Create it, or pass required=False. The store keeps" in caplog.messages[0]
    file.write_text("lr: 2\n")
    wait_until(lambda: store.get("lr") == 2)


def test_a_file_that_is_not_required_takes_its_keys_with_it(file: Path) -> None:
    with Store(FileLoader(file, poll_seconds=0.02, required=False)).load_watch() as store:
        file.unlink()
        wait_until(lambda: "lr" not in store)
        file.write_text("lr: 3\n")
        wait_until(lambda: store.get("lr") == 3)


def test_a_folder_that_vanishes_and_comes_back_is_watched_on(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "live.yaml"
    file.parent.mkdir()
    file.write_text("lr: 1\n")
    with Store(FileLoader(file, poll_seconds=0.02, required=False)).load_watch() as store:
        file.unlink()
        file.parent.rmdir()
        wait_until(lambda: "lr" not in store)
        file.parent.mkdir()
        file.write_text("lr: 2\n")
        wait_until(lambda: store.get("lr") == 2)
        file.write_text("lr: 3\n")
        wait_until(lambda: store.get("lr") == 3)


class CountedLoader(FileLoader):
    """Counts its loads."""

    num_loads = 0

    def load(self) -> Mapping[str, Any]:
        self.num_loads += 1
        return super().load()


def test_a_file_whose_time_alone_changes_is_not_loaded_again(file: Path) -> None:
    loader = CountedLoader(file, poll_seconds=0.02)
    with Store(loader).load_watch() as store:
        os.utime(file, (1, 1))
        wait_until(lambda: loader._seen == loader._signature())
        assert loader.num_loads == 1
        file.write_text("lr: 2\n")
        wait_until(reads(store, 2))
        assert loader.num_loads == 2


def test_a_reload_waits_until_the_writer_is_done(store: Store, file: Path) -> None:
    with file.open("w") as writer:
        for number in range(20):
            writer.write(f"key_{number}: {number}\n")
            writer.flush()
            threading.Event().wait(0.005)
    wait_until(lambda: "key_19" in store)
    assert successes(store) == 1


def test_a_file_that_is_missing_or_broken_at_the_first_load_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    with pytest.raises(UserError, match=rf"^{path}: does not exist. Create it, or pass required=False.$"):
        Store(FileLoader(path)).load()
    path.write_text("lr: [")
    with pytest.raises(UserError, match=rf"^{path}:\d: is not valid YAML"):
        Store(FileLoader(path, required=False, stop_on_failure=True)).load()
    with pytest.raises(UserError, match=r"the format 'ini' is not known. Use one of yaml, yml, json, toml, env, text"):
        FileLoader(path, suffix="ini")


def test_json_needs_no_newline_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "live.json"
    path.write_text('{"lr": 1}')
    with Store(FileLoader(path, poll_seconds=0.02)).load_watch() as store:
        path.write_text('{"lr": 2}')
        wait_until(lambda: store.get("lr") == 2)
