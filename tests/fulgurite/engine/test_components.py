"""Each component is of Lightning's kind, and users' classes can read the dictionaries of their config as attributes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities import AttributeDict
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import unchecked
from fulgurite.core.errors import ConfigError
from fulgurite.engine.build import build
from fulgurite.engine.components.arguments import with_attributes
from tests.conftest import ComposeSmall
from tests.support.own_code import PACKAGE, own_package

KINDS = {
    "model": ("{_target_: owncode.nets.Small}", "owncode.nets.Small is not a LightningModule"),
    "data": ("{_target_: owncode.data.Points}", "owncode.data.Points is not a LightningDataModule"),
    "trainer": ("{_target_: owncode.nets.Small}", "owncode.nets.Small is not a Trainer"),
    "callbacks": ("{mine: {_target_: owncode.nets.Small}}", "owncode.nets.Small is not a Callback"),
    "logger": ("{mine: {_target_: owncode.callbacks.Print}}", "owncode.callbacks.Print is not a Logger"),
}


@pytest.fixture(scope="module", autouse=True)
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("own")
    with own_package(folder):
        (folder / PACKAGE / "takes.py").write_text(
            "class Takes:\n    def __init__(self, cfg=None, items=None):\n        self.cfg, self.items = cfg, items\n"
            "def net_for_a_model():\n    return Takes()\n"
        )
        yield folder


@pytest.mark.parametrize("part", KINDS)
def test_a_class_of_another_kind_is_refused_before_anything_is_built(part: str, small: ComposeSmall) -> None:
    written, said = KINDS[part]
    cfg = small()
    OmegaConf.update(cfg, part, OmegaConf.create(written), merge=False, force_add=True)
    with pytest.raises(ConfigError, match=rf"^{part}\S*\._target_: {said}. Name a class that inherits from "):
        build(cfg)


def test_what_a_function_returns_is_held_to_its_place(small: ComposeSmall) -> None:
    cfg = small()
    cfg.model = {"_target_": "owncode.takes.net_for_a_model"}
    with pytest.raises(ConfigError, match=r"^model: owncode\.takes\.Takes is not a LightningModule"):
        build(cfg)


def test_a_scheduler_makes_no_optimizer(small: ComposeSmall) -> None:
    cfg = small()
    cfg.model.optimizer = {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 1}
    with pytest.raises(ConfigError, match=r"^model\.optimizer\._target_: torch.*StepLR is not an Optimizer"):
        build(cfg)


def test_an_optimizer_is_no_scheduler(small: ComposeSmall) -> None:
    cfg = small()
    cfg.model.scheduler = {"_target_": "torch.optim.AdamW", "_partial_": True}
    with pytest.raises(ConfigError, match=r"^model\.scheduler\._target_: torch.*AdamW is not an LRScheduler"):
        build(cfg)


def test_a_class_of_pytorch_lightning_is_refused_with_the_right_import(small: ComposeSmall, own_code: Path) -> None:
    text = "from pytorch_lightning import LightningModule\nclass Old(LightningModule): ...\n"
    (own_code / PACKAGE / "old.py").write_text(text)
    cfg = small()
    cfg.model = {"_target_": "owncode.old.Old"}
    with pytest.raises(ConfigError, match=r"(of|imports) pytorch_lightning\. Import from lightning\.pytorch"):
        build(cfg)


def taken(written: str) -> Any:
    """Return what `owncode.takes.Takes` gets from a config of a model."""
    cfg = OmegaConf.create(written)
    assert isinstance(cfg, DictConfig)
    before = OmegaConf.to_container(cfg, resolve=False)
    built = instantiate(with_attributes(cfg).model, _convert_="all", **unchecked())
    assert OmegaConf.to_container(cfg, resolve=False) == before
    return built


def test_dictionaries_are_read_as_attributes_and_as_dictionaries() -> None:
    built = taken("{model: {_target_: owncode.takes.Takes, cfg: {a: {b: 1}, c: [{d: 2}, 3]}}}")
    assert built.cfg.a.b == built.cfg["a"]["b"] == 1
    assert built.cfg.c[0].d == 2
    assert isinstance(built.cfg, dict)
    assert built.cfg == {"a": {"b": 1}, "c": [{"d": 2}, 3]}


def test_interpolations_of_dictionaries_too() -> None:
    built = taken("{vars: {x: {y: 1, z: '${vars.w}'}, w: 5}, model: {_target_: owncode.takes.Takes, cfg: '${vars.x}'}}")
    assert (built.cfg.y, built.cfg.z) == (1, 5)
    built = taken("{model: {_target_: owncode.takes.Takes, cfg: {lr: 1, sub: {same: '${..lr}'}}}}")
    assert built.cfg.sub.same == 1


def test_libraries_and_keys_that_are_no_text_stay_plain() -> None:
    built = taken("{model: {_target_: owncode.takes.Takes, cfg: {1: a}, items: {_target_: builtins.dict, x: {y: 1}}}}")
    assert type(built.cfg) is dict
    cfg = OmegaConf.create({"trainer": {"_target_": "lightning.pytorch.Trainer", "profiler": {"a": 1}}})
    assert "_target_" not in with_attributes(cfg).trainer.profiler


def test_a_checkpoint_holds_plain_dictionaries_and_restores_attributes(tmp_path: Path) -> None:
    from fulgurite.checkpoints.plain import from_plain, to_plain

    value = AttributeDict(a=AttributeDict(b=1))
    plain = to_plain({"hyper_parameters": {"cfg": value}, "state": value})
    assert not plain.rejected
    torch.save(plain.content, tmp_path / "x.ckpt")
    loaded = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert type(loaded["hyper_parameters"]["cfg"]["a"]) is dict
    restored = from_plain(loaded)
    assert restored["state"].a.b == 1


def test_a_value_that_an_enum_lacks_names_its_key_and_choices(small: ComposeSmall) -> None:
    cfg = small()
    cfg.model.net = {"_target_": "owncode.nets.Small", "act": "gleu"}
    with pytest.raises(ConfigError, match=r"^model\.net\.act=gleu: is not a value of Act\. Did you mean 'gelu'\?$"):
        build(cfg)


def test_a_run_without_callbacks_has_plain_names_on_disk(small: ComposeSmall, tmp_path: Path) -> None:
    cfg = small("callbacks=none", "test=false")
    run = build(cfg)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"checkpoints", "metrics.csv"}
    assert all(path.name.startswith("epoch=0-step=4.ckpt") for path in (tmp_path / "run/checkpoints").iterdir())
