"""A checkpoint of another origin runs nothing, takes memory as its size allows, and changes no other file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint

from fulgurite.callbacks import LastCheckpoint
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.checkpoints.loading import load
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.exact_resume.values.leaves import leaf_from_plain, leaf_to_plain
from fulgurite.trust.checkpoint_bounds import content_problem
from tests.support.quiet_trainer import fit_hardened
from tests.support.toy_task import OrdinaryData, OrdinaryModel

PLAIN = {"state_dict": {"weight": torch.ones(4)}}


class Calls:
    """An object that a pickle makes by a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


def nested_lists() -> list[Any]:
    """Return 40 lists with two references each to the next, so a trillion values."""
    shared: list[Any] = [torch.ones(1)]
    for _ in range(40):
        shared = [shared, shared]
    return shared


def rewritten(path: Path, **changes: Any) -> None:
    """Write an archive again, with other settings or another comment."""
    with zipfile.ZipFile(path) as archive:
        parts = [(member, archive.read(member)) for member in archive.infolist()]
    comment = changes.pop("comment", b"")
    with zipfile.ZipFile(path, "w", **changes) as archive:
        for member, content in parts:
            archive.writestr(member.filename, content)
        archive.comment = comment


def claim(path: Path) -> None:
    """Let the directory of an archive claim that each part is as long as the file."""
    content, size = bytearray(path.read_bytes()), path.stat().st_size
    position = 0
    while (position := content.find(b"PK\x01\x02", position)) >= 0:
        content[position + 20 : position + 28] = size.to_bytes(4, "little") * 2
        position += 4
    path.write_bytes(content)


def twice(path: Path) -> None:
    """Add a second part of a name."""
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.infolist()[0].filename, b"another")


def two_directories(path: Path) -> None:
    """Compress the parts, which torch finds, and put a harmless directory of the same size where Python looks."""
    rewritten(path, compression=zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    end = data.rindex(b"PK\5\6")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    directory, entry = bytearray(data[start:end]), 0
    while entry < len(directory):
        directory[entry + 10 : entry + 12] = bytes(2)  # the method: stored
        directory[entry + 20 : entry + 28] = bytes(8)  # both sizes
        entry += 46 + sum(directory[entry + 28 : entry + 34 : 2]) + 256 * sum(directory[entry + 29 : entry + 34 : 2])
    path.write_bytes(data[:end] + bytes(directory) + data[end:])


def with_types(*entries: list[Any]) -> dict[str, Any]:
    """Return a checkpoint that asks to convert values when it is loaded."""
    return {**PLAIN, "value": 1 << 40, "text": ["a"] * 9, "fulgurite_types": list(entries)}


RUNS, CLAIMS, DAMAGED, UNFIT = "could run code", r"claim \d", "is not a checkpoint, or is damaged", "does not fit"
# name: what the file holds, what is done to it, and what is reported
HOSTILE: dict[str, tuple[Any, Callable[[Path], Any] | None, str]] = {
    "command": ({**PLAIN, "x": Calls(os.mkdir, "canary")}, None, RUNS),
    "command in a key": ({**PLAIN, "x": {Calls(os.mkdir, "canary"): 1}}, None, RUNS),
    "call of another function": ({**PLAIN, "x": Calls(getattr, torch.ones(1), "numpy")}, None, RUNS),
    "bytes of a size": ({**PLAIN, "x": Calls(bytearray, 4 << 30)}, None, DAMAGED),
    "storage of a size": ({**PLAIN, "x": Calls(torch.FloatTensor, 1 << 40)}, None, DAMAGED),
    "one number a trillion times": ({"state_dict": {"weight": torch.ones(1).expand(1 << 40)}}, None, CLAIMS),
    "lists of lists": ({**PLAIN, "x": nested_lists()}, None, "contain each other"),
    "compressed": (PLAIN, lambda path: rewritten(path, compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
    "two directories": (PLAIN, two_directories, "two directories"),
    "parts on one another": (PLAIN, claim, CLAIMS),
    "two parts of a name": (PLAIN, twice, "two parts of one name"),
    "comment": (PLAIN, lambda path: rewritten(path, comment=b"PK\5\6" + bytes(18)), "two directories"),
    "truncated": (PLAIN, lambda path: path.write_bytes(path.read_bytes()[:-30]), "is damaged"),
    "text of a number": (with_types([["value"], "numpy scalar", "S1"]), None, UNFIT),
    "void of a number": (with_types([["value"], "numpy scalar", "V1"]), None, UNFIT),
    "texts of a size": (with_types([["text"], "numpy array", ["U2000000000", [9]]]), None, UNFIT),
    "deep path": (with_types([["value"] * 5000, "path", None]), None, UNFIT),
    "unknown type": (with_types([["value"], "eval", None]), None, UNFIT),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, spoil, reported = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "given.ckpt"
    torch.save(content, file)
    if spoil is not None:
        spoil(file)
    with pytest.raises(UserError, match=rf"^ckpt_path={file}: .*({reported})") as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"given.ckpt"}


def test_what_shares_memory_and_text_of_bytes_still_load(tmp_path: Path) -> None:
    tied = torch.ones(1000)
    content = {"state_dict": {"a": tied, "b": tied, "c": torch.ones(1).expand(5)}, "x": bytearray(b"\xff"), "y": [[]]}
    torch.save(content, tmp_path / "plain.ckpt")
    assert load(tmp_path / "plain.ckpt")["x"] == content["x"]


def test_a_value_inside_itself_ends_the_count() -> None:
    held: list[Any] = [torch.ones(1)]
    held.append({"inside": held})
    assert content_problem(held, 100) == ""


# --- what a run restores from a file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for an epoch, and return the checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    fit(folder)
    return folder / "ck/last.ckpt"


def fit(run: Path, epochs: int = 1, source: Path | None = None, **settings: Any) -> ModelCheckpoint:
    """Train, keep the newest checkpoint, and return the callback that does."""
    saves = ModelCheckpoint(run / "ck", "new-{epoch}", **settings)
    few: dict[str, Any] = {"max_epochs": epochs, "limit_train_batches": 1, "limit_val_batches": 1}
    fit_hardened(OrdinaryModel(), OrdinaryData(), run, [saves, LastCheckpoint(run / "ck")], ckpt_path=source, **few)
    return saves


@pytest.fixture
def edited(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return what writes a checkpoint with another state of ModelCheckpoint, for a run in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ck").mkdir()

    def edit(**changes: Any) -> Path:
        content = torch.load(trained, weights_only=True)
        [key] = [key for key in content["callbacks"] if key.startswith("ModelCheckpoint")]
        content["callbacks"][key] |= {"dirpath": str(tmp_path / "ck"), **changes}
        torch.save(content, tmp_path / "ck/given.ckpt")
        return tmp_path / "ck/given.ckpt"

    return edit


@pytest.mark.parametrize("path", ["memory://canary", "file://{tmp}/canary", "simplecache::memory://canary", "data:,x"])
@pytest.mark.parametrize("key", ["best_model_path", "last_model_path", "kth_best_model_path", "best_k_models"])
def test_a_state_names_no_address(key: str, path: str, edited: Callable[..., Path], tmp_path: Path) -> None:
    named = path.format(tmp=tmp_path)
    source = edited(**{key: {named: torch.tensor(1.0)} if key == "best_k_models" else named})
    with pytest.raises(UserError, match=rf"^{source}: its state of ModelCheckpoint names \S+, which is not below"):
        fit(tmp_path, 2, source)


@pytest.mark.parametrize(
    "state",
    [
        {"best_model_path": 3},
        {"best_k_models": {"a": "b"}},
        {"best_k_models": ["a"]},
        {"dirpath": ["a"]},
        {"last_model_path": "a\0b"},
    ],
)
def test_a_state_of_other_types_is_refused(state: dict[str, Any], edited: Callable[..., Path], tmp_path: Path) -> None:
    source = edited(**state)
    with pytest.raises(UserError, match=rf"^{source}: its state of ModelCheckpoint has .* instead of a (path|score)"):
        fit(tmp_path, 2, source)


@pytest.mark.parametrize(
    "place", ["ck/keep", "ck", "ck/keep/../../keep.ckpt", "ck/link.ckpt", "keep.ckpt", "ck/keep.txt"]
)
def test_no_folder_and_no_other_file_is_removed(place: str, edited: Callable[..., Path], tmp_path: Path) -> None:
    for file in ("ck/keep/file", "keep.ckpt/file", "ck/keep.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("canary")
    (tmp_path / "ck/link.ckpt").symlink_to(tmp_path / "keep.ckpt")
    fit(tmp_path, 2, edited(best_model_path=f"{tmp_path}/{place}"))
    for file in ("ck/keep/file", "keep.ckpt/file", "ck/keep.txt"):
        assert (tmp_path / file).read_text() == "canary"


def test_a_checkpoint_of_the_callback_is_still_replaced(edited: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "ck/old.ckpt").write_text("old")
    saves = fit(tmp_path, 2, edited(best_model_path=f"{tmp_path}/ck/old.ckpt"))
    assert not (tmp_path / "ck/old.ckpt").exists()
    assert Path(saves.best_model_path).name == "new-epoch=1.ckpt"


def test_an_address_is_removed_only_by_the_process_that_wrote_it(caplog: pytest.LogCaptureFixture) -> None:
    memory, files = get_filesystem("memory://own"), VerifiedCheckpointIO()
    files.save_checkpoint({"state_dict": {}}, "memory://own/a.ckpt")
    memory.pipe("/other/b.ckpt", b"canary")
    present = set(memory.find("/"))
    for address in ("memory://own/a.ckpt", "memory://other", "memory://other/b.ckpt"):
        files.remove_checkpoint(address)
    assert present - set(memory.find("/")) == {"/own/a.ckpt"}
    assert "memory://other/b.ckpt is not removed: another process wrote it." in caplog.text
    memory.rm("/other", recursive=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ModelCheckpoint 1.FILE_EXTENSION", "/../../canary.ckpt"),
        ("ModelCheckpoint 1.dirpath", "elsewhere"),
        ("ModelCheckpoint 1.CHECKPOINT_NAME_LAST", "../canary"),
        ("default_root_dir", "elsewhere"),
        ("_loggers", "elsewhere"),
        ("save_checkpoint", "elsewhere"),
        ("max_time", ["elsewhere"]),
    ],
)
def test_settings_that_runs_do_not_save_are_not_restored(
    name: str, value: Any, edited: Callable[..., Path], tmp_path: Path
) -> None:
    source = edited()
    content = torch.load(source, weights_only=True)
    [exact] = [state for key, state in content["callbacks"].items() if key.startswith("ExactResume")]
    for own in exact["ranks"]:
        own["user"]["settings"] = {name: [value]}
    torch.save(content, source)
    before = set(tmp_path.rglob("*"))
    fit(tmp_path, 2, source)
    assert any(line.startswith(f"{name}: ") for line in current_context().inexact)
    added = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    assert {path for path in added if "canary" in path or "elsewhere" in path} == set()


@pytest.mark.parametrize(
    ("kind", "text"), [("dtype", "torch.load"), ("dtype", "load"), ("fraction", "1e999999999"), ("device", "os")]
)
def test_a_text_of_an_object_names_objects_of_its_kind_only(kind: str, text: str) -> None:
    with pytest.raises((LookupError, ValueError, RuntimeError)):
        leaf_from_plain([kind, text], None, torch.device("cpu"))


@pytest.mark.parametrize("value", [torch.bfloat16, torch.float32, Fraction(-3, 7), Fraction(4)])
def test_dtypes_and_fractions_are_restored(value: Any) -> None:
    plain = leaf_to_plain(value)
    assert plain is not None
    assert leaf_from_plain(plain, None, torch.device("cpu")) == value
