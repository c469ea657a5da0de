"""Data sets are intact, split the same way every time, and batched as a computation by hand."""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader, DistributedSampler

from fulgurite import UserError
from src.data.augment import RandomShift
from src.data.batches import Batch, ImageSet
from src.data.mnist import MNISTDataModule
from src.data.mnist_files import DATASETS
from tests.support.project import ROOT, shipped
from tests.support.run_if import RunIf
from tests.support.tiny_mnist import NAMES, tiny_arrays, tiny_dataset

SAMPLE_DIR = ROOT / "data" / "mnist_sample"
SAMPLE_SHA256 = "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"
PINNED_VAL_ROWS = [20, 37, 39, 44, 45, 51, 52, 67]
DEBIAN = "/usr/share/datasets/fashion-mnist"


def _sample(**changes: Any) -> MNISTDataModule:
    arguments: dict[str, Any] = {"val_size": 500, "batch_size": 64, **changes}
    data = MNISTDataModule("mnist_sample", str(SAMPLE_DIR), **arguments)
    data.prepare_data()
    data.setup("fit")
    return data


# --- the sample


def test_the_sample_is_small_pinned_and_read_with_numpy_alone() -> None:
    file = SAMPLE_DIR / "mnist_5k.npz"
    assert file.stat().st_size < 1_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SAMPLE_SHA256
    assert SAMPLE_SHA256 in (SAMPLE_DIR / "README.md").read_text(encoding="utf-8")
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["images"].shape == (5000, 28, 28)
        assert arrays["images"].dtype == arrays["labels"].dtype == np.uint8
        assert np.bincount(arrays["labels"]).tolist() == [500] * 10


def test_the_sample_is_read_in_place_and_never_written(tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in SAMPLE_DIR.iterdir()}
    data = _sample()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (4000, 500, 500)
    assert {path.name: path.stat().st_mtime_ns for path in SAMPLE_DIR.iterdir()} == before


@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04 not really", "cut"], ids=["missing", "empty", "junk", "cut"]
)
def test_a_broken_sample_is_named_with_the_remedy(tmp_path: Path, content: bytes | str | None) -> None:
    whole = (SAMPLE_DIR / "mnist_5k.npz").read_bytes()
    if content is not None:
        (tmp_path / "mnist_5k.npz").write_bytes(whole[:400_000] if isinstance(content, str) else content)
    data = MNISTDataModule("mnist_sample", str(tmp_path), val_size=500)
    with pytest.raises(
        UserError, match=r"mnist_5k\.npz: .*Restore it with: git checkout -- data/mnist_sample"
    ) as caught:
        data.prepare_data()
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_the_sample_is_not_trained_on(tmp_path: Path) -> None:
    content = bytearray((SAMPLE_DIR / "mnist_5k.npz").read_bytes())
    content[400_000] ^= 1
    (tmp_path / "mnist_5k.npz").write_bytes(content)
    with pytest.raises(UserError, match="the file is damaged"):
        MNISTDataModule("mnist_sample", str(tmp_path), val_size=500).prepare_data()


# --- the cut


def test_the_cut_is_disjoint_complete_and_has_equal_shares() -> None:
    data = _sample()
    rows = [data.train_set.rows, data.val_set.rows, data.test_set.rows]
    assert torch.cat(rows).sort().values.tolist() == list(range(5000))
    for part, share in zip(rows, (400, 50, 50), strict=True):
        assert torch.bincount(data.train_set.store.labels[part]).tolist() == [share] * 10


def test_the_cut_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = _sample().val_set.rows
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = _sample().val_set.rows
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state), "cutting must not touch the global generator"
    assert not torch.equal(first, _sample(split_seed=43).val_set.rows)
    assert first[:8].tolist() == PINNED_VAL_ROWS, "published figures hold for this cut only"


def test_the_test_set_is_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, files = tiny_dataset()
    monkeypatch.setitem(DATASETS, "mnist", info)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    data = MNISTDataModule("mnist", str(tmp_path), val_size=40, batch_size=16)
    data.prepare_data()
    data.setup("test")
    images, labels = next(iter(DataLoader(data.test_set, 50, collate_fn=lambda batch: batch)))
    arrays = tiny_arrays()
    assert torch.allclose(images.squeeze(1), (torch.from_numpy(arrays[NAMES[2]]) / 255 - 0.5) / 0.25, atol=1e-6)
    assert labels.tolist() == arrays[NAMES[3]].tolist()
    assert torch.cat([data.train_set.rows, data.val_set.rows]).sort().values.tolist() == list(range(200))
    assert len(data.val_set) == 40


# --- batches


def test_a_batch_equals_a_computation_image_by_image() -> None:
    data = _sample()
    with np.load(SAMPLE_DIR / "mnist_5k.npz") as arrays:
        pixels, classes = arrays["images"], arrays["labels"]
    for loader, images_set in ((data.val_dataloader(), data.val_set), (data.predict_dataloader(), data.test_set)):
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == [64] * 7 + [52]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert images.shape == (500, *data.shape)
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        for at, row in enumerate(images_set.rows.tolist()):
            by_hand = (pixels[row].astype(np.float64) / 255 - 0.1307) / 0.3081
            assert np.abs(images[at, 0].numpy() - by_hand).max() < 1e-6
            assert labels[at] == classes[row]


def test_one_image_equals_its_row_of_a_batch() -> None:
    data = _sample()
    image, label = data.train_set[3]
    images, labels = data.train_set.__getitems__([1, 3])
    assert torch.equal(image, images[1])
    assert label == labels[1]
    assert image.shape == (1, 28, 28)


def test_an_epoch_shows_every_training_image_once_in_a_new_order(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _sample(batch_size=64)
    asked: list[list[int]] = []
    real = ImageSet.__getitems__

    def listen(self: ImageSet, indices: list[int]) -> Batch:
        asked.append(indices)
        return real(self, indices)

    monkeypatch.setattr(ImageSet, "__getitems__", listen)
    monkeypatch.delattr(ImageSet, "__getitem__")  # a loader that asked image by image would fail
    torch.manual_seed(0)
    loader = data.train_dataloader()
    epochs = []
    for _ in range(2):
        asked.clear()
        assert sum(len(labels) for _, labels in loader) == 4000
        assert [len(indices) for indices in asked] == [64] * 62 + [32]
        epochs.append([index for indices in asked for index in indices])
        assert sorted(epochs[-1]) == list(range(4000))
    assert epochs[0] != epochs[1]


def test_evaluation_is_never_shuffled_and_workers_change_nothing() -> None:
    here, beside = _sample(), _sample(num_workers=1)
    loader = beside.val_dataloader()
    assert loader.persistent_workers
    for (images, labels), (images_beside, labels_beside) in zip(here.val_dataloader(), loader, strict=True):
        assert torch.equal(images, images_beside)
        assert torch.equal(labels, labels_beside)


def test_the_batch_size_is_shared_by_all_devices() -> None:
    data = _sample(batch_size=64)
    data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 2})  # type: ignore[assignment]
    loader = data.train_dataloader()
    assert loader.batch_size == 32
    seen = []
    for rank in range(2):
        sampler: DistributedSampler[Any] = DistributedSampler(data.train_set, num_replicas=2, rank=rank)
        seen += list(sampler)
    assert sorted(seen) == list(range(4000))


def test_a_batch_size_that_does_not_divide_is_refused() -> None:
    data = MNISTDataModule("mnist_sample", str(SAMPLE_DIR), val_size=500, batch_size=65)
    data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 4})  # type: ignore[assignment]
    with pytest.raises(
        UserError, match=r"data\.batch_size=65: .* by 4 ranks\. Set a multiple of 4, e\.g\. data\.batch_size=64"
    ):
        data.setup("fit")


def test_pickling_carries_paths_and_not_images() -> None:
    data = _sample()
    carried = pickle.dumps(data)
    assert len(carried) < 100_000, "the images alone have 3,920,000 bytes"
    images, labels = data.val_set.__getitems__([0, 499])
    there = pickle.loads(carried)  # noqa: S301 - made three lines above
    images_there, labels_there = there.val_set.__getitems__([0, 499])
    assert torch.equal(images, images_there)
    assert torch.equal(labels, labels_there)


# --- augmentation


def test_augment_is_for_training_only_and_gets_whole_batches() -> None:
    shapes: list[tuple[int, ...]] = []

    def invert(images: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(images.shape))
        return -images

    plain, changed = _sample(), _sample(augment=invert)
    assert torch.equal(changed.train_set.__getitems__([5, 6])[0], -plain.train_set.__getitems__([5, 6])[0])
    assert torch.equal(changed.val_set.__getitems__([5])[0], plain.val_set.__getitems__([5])[0])
    assert torch.equal(changed.test_set.__getitems__([5])[0], plain.test_set.__getitems__([5])[0])
    assert shapes == [(2, 1, 28, 28)]


def test_random_shift_moves_each_image_by_its_own_whole_pixels() -> None:
    images = torch.rand(200, 1, 9, 9)
    torch.manual_seed(3)
    moved = RandomShift(pixels=2)(images)
    torch.manual_seed(3)
    assert torch.equal(moved, RandomShift(pixels=2)(images))
    assert moved.shape == images.shape
    moves = set()
    for before, after in zip(images[:, 0], moved[:, 0], strict=True):
        # away from the border, where the edge is repeated, the image must be the old one moved by (down, right)
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(after[2:7, 2:7], before[2 + down : 7 + down, 2 + right : 7 + right])
        ]
        assert len(fits) == 1
        moves.add(fits[0])
    assert len(moves) == 25, "200 draws of 25 moves"


def test_random_shift_repeats_the_edge_and_refuses_nonsense() -> None:
    flat = torch.full((4, 1, 5, 5), -0.42)
    assert torch.equal(RandomShift(pixels=3)(flat), flat)
    assert torch.equal(RandomShift(pixels=0)(torch.ones(2, 1, 5, 5)), torch.ones(2, 1, 5, 5))
    with pytest.raises(UserError, match="pixels=-1: must be 0 or more"):
        RandomShift(pixels=-1)


# --- memory


@RunIf(path="/proc/self/status")
@pytest.mark.slow
def test_the_pipeline_needs_no_more_memory_than_its_arrays(tmp_path: Path) -> None:
    code = f"""
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from src.data.mnist import MNISTDataModule
from src.data.mnist_files import DATASETS
from tests.support.tiny_mnist import tiny_arrays, tiny_dataset, idx_bytes

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

def epoch(num_train, folder):
    family, files = tiny_dataset(num_train=num_train, num_test=100)
    for name, content in files.items():
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / name).write_bytes(content)
    del files
    DATASETS["mnist"] = family
    data = MNISTDataModule("mnist", folder, val_size=100, batch_size=128)
    data.prepare_data()
    before = status("VmRSS"), status("RssAnon")
    data.setup("fit")
    for images, labels in data.train_dataloader():
        pass
    return status("VmRSS") - before[0], status("RssAnon") - before[1]

epoch(2_000, {str(tmp_path / "small")!r})
print(*epoch(60_000, {str(tmp_path / "large")!r}))
"""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    resident, anonymous = map(int, run.stdout.split())
    arrays = 60_000 * 785
    assert resident <= 1.2 * arrays, f"{resident / arrays:.2f} x the arrays"
    # what the system cannot drop when memory is short: the order of an epoch, never the images
    assert anonymous <= 0.15 * arrays, f"{anonymous / arrays:.2f} x the arrays"


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fashion_mnits"}, r"data\.name=fashion_mnits: no such data set. Did you mean 'fashion_mnist'"),
        ({"batch_size": 0}, r"data\.batch_size=0: must be a whole number, 1 or more"),
        ({"batch_size": 12.5}, r"data\.batch_size=12\.5: must be a whole number"),
        ({"num_workers": -1}, r"data\.num_workers=-1: must be a whole number, 0 or more"),
        ({"num_classes": 9}, r"data\.num_classes=9: must be a whole number, 10 or more"),
        ({"val_size": 0}, r"data\.val_size=0: must be a whole number, 1 or more"),
        ({"val_size": 60_000, "name": "mnist"}, r"data\.val_size=60000: no image is left to train on"),
        ({"val_size": 4_500}, r"data\.val_size \+ data\.test_size=5000: no image .*less than 5000"),
        ({"test_size": 10, "name": "mnist"}, r"data\.test_size=10: mnist has a test set of its own. Remove the key"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        MNISTDataModule(**{"name": "mnist_sample", "data_dir": "x", "val_size": 500, **arguments})
    assert "\n" not in str(caught.value)


def test_all_wrong_arguments_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        MNISTDataModule("mnist_sample", "x", batch_size=0, num_workers=-1)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("path", shipped((ROOT / "configs" / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_config_names_all_arguments_it_may(path: Path) -> None:
    keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    if keys.pop("_target_") != "src.data.mnist.MNISTDataModule":
        pytest.skip("of another family")
    arguments = set(inspect.signature(MNISTDataModule).parameters)
    of_one_kind = {"local_dirs"} if keys["name"] == "mnist_sample" else {"test_size"}
    assert keys.keys() == arguments - of_one_kind


# --- the real thing


def test_pins_are_sums_and_mirrors_are_https() -> None:
    for name in ("mnist", "fashion_mnist"):
        family = DATASETS[name]
        sums = [value for file in family.files for value in (file.sha256, file.gz_sha256)]
        assert len(set(sums)) == 8
        assert all(len(bytes.fromhex(value)) == 32 for value in sums)
        assert len(family.mirrors) >= 2
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in family.mirrors)


@RunIf(path=DEBIAN)
def test_fashion_mnist_comes_from_the_debian_package(tmp_path: Path) -> None:
    data = MNISTDataModule("fashion_mnist", str(tmp_path), local_dirs=[DEBIAN])
    data.prepare_data()
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (55_000, 5_000, 10_000)
    assert torch.bincount(data.val_set.store.labels[data.val_set.rows]).tolist() == [500] * 10
    images = torch.cat([images for images, _ in data.train_dataloader()])
    assert abs(images.mean().item()) < 0.002
    assert abs(images.std().item() - 1) < 0.002
