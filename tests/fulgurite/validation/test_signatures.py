"""A signature read from source equals that of `inspect`; what source does not show is never reported as wrong."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object

from fulgurite.validation.signatures import resolve as names
from fulgurite.validation.signatures import signature as signatures
from fulgurite.validation.signatures import source
from fulgurite.validation.signatures.annotations import Match, describe, match
from fulgurite.validation.signatures.signature import Signature, read_signature
from fulgurite.validation.signatures.source import NotFound

CLOSED = [
    "lightning.Trainer",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.LearningRateMonitor",
    "lightning.pytorch.callbacks.ModelCheckpoint",
    "lightning.pytorch.callbacks.RichProgressBar",
    "lightning.pytorch.callbacks.StochasticWeightAveraging",
    "lightning.pytorch.callbacks.TQDMProgressBar",
    "lightning.pytorch.callbacks.Timer",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.profilers.SimpleProfiler",
    "lightning.pytorch.strategies.ModelParallelStrategy",
    "torch.nn.BatchNorm2d",
    "torch.nn.Conv2d",
    "torch.nn.CrossEntropyLoss",
    "torch.nn.Dropout",
    "torch.nn.Embedding",
    "torch.nn.Linear",
    "torch.nn.MultiheadAttention",
    "torch.nn.ReLU",
    "torch.nn.TransformerEncoderLayer",
    "torch.optim.swa_utils.SWALR",
    "torch.utils.data.DataLoader",
    "fulgurite.callbacks.progress.model_summary",
    "fulgurite.callbacks.progress.progress_bar",
    "src.data.mnist.MNISTDataModule",
    "src.models.classifier.Classifier",
    "src.models.nets.convnet.SimpleConvNet",
    "src.models.nets.dense.SimpleDenseNet",
]
OPTIMIZERS = ["Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "LBFGS", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]
SCHEDULERS = [
    "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR", "LambdaLR",
    "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip
SAME = [
    *CLOSED,
    *(f"torch.optim.{name}" for name in OPTIMIZERS),
    *(f"torch.optim.lr_scheduler.{name}" for name in SCHEDULERS),
]
# their **kwargs lead somewhere: to the base class, which refuses what it does not know, or out of sight
FORWARDING = {
    "torch.nn.LSTM": False,
    "torchmetrics.MeanMetric": False,
    "torchmetrics.classification.MulticlassAccuracy": False,
    "lightning.pytorch.loggers.TensorBoardLogger": True,
    "lightning.pytorch.loggers.WandbLogger": True,
    "lightning.pytorch.strategies.DDPStrategy": True,
}


def declared(signature: inspect.Signature) -> dict[str, bool]:
    """Return each parameter with whether it must be given."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: p.default is p.empty for p in signature.parameters.values() if p.kind not in kinds}


def read(target: str) -> Signature:
    signature = read_signature(target)
    assert isinstance(signature, Signature), (target, signature)
    return signature


@pytest.mark.parametrize("target", SAME)
def test_a_signature_read_from_source_equals_that_of_inspect(target: str) -> None:
    mine = read(target)
    assert {p.name: p.required for p in mine.parameters.values()} == declared(inspect.signature(get_object(target)))
    assert not mine.takes_any


@pytest.mark.parametrize(("target", "takes_any"), FORWARDING.items())
def test_kwargs_are_followed_to_the_base_class(target: str, takes_any: bool) -> None:
    mine = read(target)
    assert mine.takes_any is takes_any
    assert (
        declared(inspect.signature(get_object(target))).items()
        <= {p.name: p.required for p in mine.parameters.values()}.items()
    )


def test_the_arguments_of_the_base_are_among_those_of_the_subclass() -> None:
    assert {"nan_strategy", "sync_on_compute", "dist_sync_on_step"} <= set(read("torchmetrics.MeanMetric").parameters)
    assert "hidden_size" in read("torch.nn.LSTM").parameters


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Write a package `zoo` that nothing has imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def forget() -> None:
        importlib.invalidate_caches()
        for cached in (source.find_module, names.lookup, signatures.read_signature):
            cached.cache_clear()

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            file = tmp_path / "zoo" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        forget()

    yield write
    forget()


BOOM = "raise RuntimeError('imported')\n"


def test_reading_imports_nothing_and_follows_every_kind_of_import(package: Callable[[dict[str, str]], None]) -> None:
    package(
        {
            "__init__.py": f"from .inner import Deep as Renamed\nfrom zoo.stars import *\nimport zoo.inner\n{BOOM}",
            "inner/__init__.py": "from ._impl import Deep\n",
            "inner/_impl.py": f"{BOOM}class Deep:\n    def __init__(self, a, *, b=1): ...\n",
            "stars.py": "__all__ = ['Shown']\nclass Shown:\n    def __init__(self, c): ...\nclass Hidden: ...\n",
            "late.py": "try:\n    from zoo.missing import Fast as Tool\n"
            "except ImportError:\n    class Tool:\n        def __init__(self, slow=True): ...\n",
        }
    )
    for target in ("zoo.Renamed", "zoo.inner.Deep", "zoo.inner._impl.Deep"):
        assert list(read(target).parameters) == ["a", "b"]
    assert list(read("zoo.Shown").parameters) == ["c"]
    assert list(read("zoo.late.Tool").parameters) == ["slow"]
    assert isinstance(read_signature("zoo.Hidden"), NotFound)
    assert "zoo" not in sys.modules


def test_constructors_come_from_bases_dataclasses_new_and_class_methods(
    package: Callable[[dict[str, str]], None],
) -> None:
    package(
        {
            "__init__.py": "",
            "a.py": (
                "from dataclasses import dataclass, field\n"
                "from typing import ClassVar, overload\n"
                "class Base:\n    def __init__(self, x, y=2): ...\n"
                "class Child(Base): ...\n"
                "class Wider(Base):\n"
                "    def __init__(self, z, **kwargs):\n        super().__init__(x=1, **kwargs)\n"
                "class Looks(Base):\n"
                "    def __init__(self, **kwargs):\n        self.w = kwargs.pop('w', 1)\n"
                "        super().__init__(1, **kwargs)\n"
                "class Leaks(Base):\n    def __init__(self, **kwargs):\n        keep(kwargs)\n"
                "@dataclass\nclass Data:\n    one: int\n    two: str = 'b'\n"
                "    three: list = field(default_factory=list)\n    four: int = field(init=False)\n"
                "    five: ClassVar[int] = 5\n"
                "class New:\n    def __new__(cls, task): ...\n"
                "class Made:\n    @classmethod\n    def from_file(cls, path, strict=True): ...\n"
                "    @staticmethod\n    def plain(n): ...\n"
                "@overload\ndef twice(a: int): ...\n@overload\ndef twice(a: str): ...\ndef twice(a, b=0): ...\n"
                "if FAST:\n    def either(a): ...\nelse:\n    def either(b): ...\n"
                "@unknown_decorator\ndef changed(a): ...\n"
            ),
        }
    )
    taken = {
        name: list(read(f"zoo.a.{name}").parameters)
        for name in ("Child", "Wider", "Looks", "Data", "New", "Made.from_file", "Made.plain", "twice")
    }
    assert taken == {
        "Child": ["x", "y"],
        "Wider": ["z", "y"],
        "Looks": ["w", "y"],
        "Data": ["one", "two", "three"],
        "New": ["task"],
        "Made.from_file": ["path", "strict"],
        "Made.plain": ["n"],
        "twice": ["a", "b"],
    }
    assert read("zoo.a.Leaks").takes_any
    assert [p.name for p in read("zoo.a.Data").parameters.values() if p.required] == ["one"]
    # which of two it is, or what a decorator makes of it, is known only at run time
    assert read_signature("zoo.a.either") is None
    assert read_signature("zoo.a.changed") is None


@pytest.mark.parametrize(
    ("target", "absent"),
    [
        ("nosuchpackage.Thing", ("", "nosuchpackage", True)),
        ("src.modles.classifier.Classifier", ("src", "modles", True)),
        ("src.models.clasifier.Classifier", ("src.models", "clasifier", True)),
        ("src.models.classifier.Clasifier", ("src.models.classifier", "Clasifier", False)),
        ("torch.optm.Adam", ("torch", "optm", True)),
        ("torch.optim.Adamm", ("torch.optim", "Adamm", False)),
        ("torch.optim", ("torch.optim", "", False)),
        ("torch.optim.Adam.stepp", ("torch.optim.adam.Adam", "stepp", False)),
    ],
)
def test_a_missing_package_module_class_and_method_are_distinguished(
    target: str, absent: tuple[str, str, bool]
) -> None:
    found = read_signature(target)
    assert isinstance(found, NotFound)
    assert (found.holder, found.missing, found.is_module) == absent


@pytest.mark.parametrize("target", ["torch.Tensor.made_at_run_time", "math.sqrt", "torch._C.whatever", "torch.zeros"])
def test_what_source_does_not_tell_is_not_called_wrong(target: str) -> None:
    assert read_signature(target) is None


@pytest.mark.parametrize(
    ("target", "name", "value", "expected"),
    [
        ("lightning.Trainer", "max_epochs", 3, Match.YES),
        ("lightning.Trainer", "max_epochs", None, Match.YES),
        ("lightning.Trainer", "max_epochs", "3", Match.NO),
        ("lightning.Trainer", "max_epochs", 1.5, Match.NO),
        ("lightning.Trainer", "max_epochs", True, Match.NO),
        ("lightning.Trainer", "deterministic", "warn", Match.YES),
        ("lightning.Trainer", "deterministic", "yes", Match.NO),
        ("lightning.Trainer", "devices", [0, 1], Match.YES),
        ("lightning.Trainer", "devices", ["a"], Match.NO),
        ("lightning.Trainer", "precision", "16-mixed", Match.YES),
        ("lightning.Trainer", "precision", "16-mixd", Match.NO),
        ("lightning.Trainer", "strategy", {"_target_": "x"}, Match.UNKNOWN),
        ("lightning.Trainer", "max_time", "00:12:00:00", Match.YES),
        ("torch.optim.Adam", "lr", 1, Match.YES),
        ("torch.optim.Adam", "lr", "abc", Match.NO),
        ("torch.optim.Adam", "betas", [0.9, 0.999], Match.YES),
        ("torch.optim.Adam", "betas", [0.9], Match.NO),
        ("torch.optim.lr_scheduler.ReduceLROnPlateau", "mode", "min", Match.YES),
        ("torch.optim.lr_scheduler.ReduceLROnPlateau", "mode", "mn", Match.NO),
        ("src.models.classifier.Classifier", "net", "a name", Match.OBJECT),
    ],
)
def test_values_are_judged_by_annotations_aliases_included(target: str, name: str, value: Any, expected: Match) -> None:
    parameter = read(target).parameters[name]
    assert match(value, parameter.annotation, parameter.module) is expected


def test_an_annotation_is_described_in_words() -> None:
    parameters = read("lightning.Trainer").parameters
    said = {
        name: describe(p.annotation, p.module) for name, p in parameters.items() if name in {"max_epochs", "devices"}
    }
    assert said == {
        "max_epochs": "a whole number or null",
        "devices": "a list (int each), text or a whole number",
    }


def test_a_class_in_folders_without_init_files_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare_outer" / "bare_inner").mkdir(parents=True)
    (tmp_path / "bare_outer" / "bare_inner" / "nets.py").write_text("class Net:\n    def __init__(self, width): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = read_signature("bare_outer.bare_inner.nets.Net")
    assert isinstance(found, Signature)
    assert list(found.parameters) == ["width"]
