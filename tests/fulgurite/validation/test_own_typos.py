"""Typos in a user's own files are caught with file, line and the right name, whatever classes the files use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import finding_in_file, findings, with_file
from tests.support.own_code import own_package


@pytest.fixture(scope="module", autouse=True)
def _own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_package(tmp_path_factory.mktemp("own")):
        yield


DATA = "data:\n  _target_: owncode.data.PointsData\n"
PLAIN = "model:\n  _target_: owncode.lit.Plain\n"
LIT = "model:\n  _target_: owncode.lit.Lit\n  net:\n    _target_: owncode.nets.Small\n"

CHAIN = f"{DATA}  transforms:\n    _target_: owncode.data.Compose\n    transforms:\n"

# (text below the package line, line number, what the one line says)
TYPOS = [
    # arguments of one's own classes
    (f"{DATA}  batchsize: 8\n", 4, "PointsData takes no argument 'batchsize'. Did you mean 'batch_size'?"),
    (f"{DATA}  num_wokers: 2\n", 4, "PointsData takes no argument 'num_wokers'. Did you mean 'num_workers'"),
    (f"{DATA}  train_val_test_spilt: [1, 1, 1]\n", 4, "Did you mean 'train_val_test_split'?"),
    (f"{DATA}  num_folds: 3\n", 4, "PointsData takes no argument 'num_folds'. It takes data_dir, train_val_test_split"),
    (f"{DATA}  val_size: 3\n", 4, "PointsData takes no argument 'val_size'. It takes data_dir, train_val_test_split"),
    (f"{DATA}  transform: null\n", 4, "PointsData takes no argument 'transform'. Did you mean 'transforms'?"),
    (f"{PLAIN}  widht: 8\n", 4, "Plain takes no argument 'widht'. Did you mean 'width'?"),
    (f"{PLAIN}  learning_rate: 1\n", 4, "Plain takes no argument 'learning_rate'. It takes width, lr, hidden_dims"),
    (f"{PLAIN}  hidden_dim: [8]\n", 4, "Did you mean 'hidden_dims'?"),
    (f"{LIT}    widt: 8\n", 6, "Small takes no argument 'widt'. Did you mean 'width'?"),
    (f"{LIT}    dropuot: 0.1\n", 6, "Small takes no argument 'dropuot'. Did you mean 'dropout'?"),
    (f"{LIT}  los: null\n", 6, "Lit takes no argument 'los'. Did you mean 'loss'"),
    (f"{LIT}  optimiser: null\n", 6, "Lit takes no argument 'optimiser'. Did you mean 'optimizer'?"),
    ("model:\n  net:\n    _target_: owncode.nets.Wide\n    drop_out: 1\n", 5, "Did you mean 'dropout'?"),
    ("model:\n  net: {_target_: owncode.nets.Small.tiny, otu: 3}\n", 3, "tiny takes no argument 'otu'. Did you mean"),
    ("model:\n  net:\n    _target_: owncode.nets.Linear\n    bais: true\n", 5, "Did you mean 'bias'?"),
    ("model:\n  net:\n    _target_: owncode.nets.Encoder\n    dim: [4]\n", 5, "Did you mean 'dims'?"),
    (f"{LIT}  scheduler:\n    _target_: owncode.lit.Warmup\n    warmup_stesp: 3\n", 8, "Did you mean 'warmup_steps'?"),
    # arguments of Lightning and torch beside them
    (f"{LIT}  optimizer:\n    _target_: torch.optim.SGD\n    momentm: 0.9\n", 8, "Did you mean 'momentum'?"),
    (f"{LIT}  optimizer:\n    _target_: torch.optim.AdamW\n    weight_deacy: 0\n", 8, "Did you mean 'weight_decay'?"),
    (f"{LIT}trainer:\n  max_epoch: 3\n", 7, "Trainer takes no argument 'max_epoch'. Did you mean 'max_epochs'"),
    (f"{LIT}trainer:\n  accelarator: cpu\n", 7, "Did you mean 'accelerator'?"),
    (f"{LIT}trainer:\n  gradient_clip: 1\n", 7, "Did you mean 'gradient_clip_val'"),
    (f"{LIT}callbacks:\n  early_stopping:\n    pateince: 3\n", 8, "Did you mean 'patience'?"),
    (f"{LIT}callbacks:\n  model_chekpoint:\n    monitor: x\n", 7, "Did you mean 'model_checkpoint'?"),
    (f"{LIT}logger:\n  tensorbord:\n    name: x\n", 7, "Did you mean 'tensorboard'?"),
    # names of classes
    ("model:\n  _target_: owncode.lit.Plian\n", 3, "has no class or function 'Plian'. Did you mean 'Plain'?"),
    ("model:\n  _target_: owncode.lti.Plain\n", 3, "owncode has no module 'lti'. Did you mean 'lit'?"),
    ("model:\n  _target_: ownocde.lit.Plain\n", 3, "there is no package 'ownocde'"),
    ("data:\n  _target_: owncode.data.PointData\n", 3, "has no class or function 'PointData'. Did you mean 'Points"),
    ("model:\n  net:\n    _target_: owncode.nets.small\n", 4, "no class or function 'small'. Did you mean 'Small'?"),
    # top level, interpolations, groups
    (f"{LIT}max_epochs: 3\n", 6, "max_epochs=3: nothing reads this key. Did you mean 'trainer.max_epochs'?"),
    (f"{LIT}optimizer: {{lr: 1}}\n", 6, "nothing reads this key. Did you mean 'model.optimizer'?"),
    (f"{LIT}my_width: 3\n", 6, "Remove it, or put values of your own below vars: vars.my_width"),
    (f"vars: {{width: 3}}\n{PLAIN}  width: ${{vars.widht}}\n", 5, "does not exist. Did you mean 'vars.width'?"),
    (f"vars: {{width: 3}}\n{PLAIN}  width: ${{var.width}}\n", 5, "does not exist. Did you mean 'vars.width'?"),
    (f"{PLAIN}  width: ${{oc.enf:WIDTH}}\n", 4, "${oc.enf:...} names no resolver. Did you mean 'oc.env'?"),
    ("defaults:\n  - override /data: mnist_smaple\n", 3, "no data 'mnist_smaple'. Did you mean 'mnist_sample'"),
    # words of a defaults list, and its groups
    ("defaults:\n  - overide /data: mnist\n", 3, "'overide' is no word of a defaults list. Did you mean 'override'?"),
    ("defualts:\n  - override /data: mnist\n", 2, "nothing reads this key. Did you mean 'defaults'?"),
    ("defaults:\n  - /data@vars.other: mnist\n  - override /data@vars.othr: mnist_sample\n", 4,
     "data@vars.othr is not in the defaults list. Did you mean 'data' or 'data@vars.other'?"),
    # case, and a value that Lightning divides by
    ("model:\n  net:\n    _target_: torch.nn.Relu\n", 4, "has no class or function 'Relu'. Did you mean 'ReLU'?"),
    ("trainer:\n  val_check_interval: 0\n", 3, "trainer.val_check_interval=0: must be above 0"),
    ("tag: [a]\n", 2, "nothing reads this key. Did you mean 'tags'?"),
    # in nested lists
    (f"{CHAIN}      - {{_target_: owncode.data.Noise}}\n      - _target_: owncode.data.Noise\n        sdt: 0.1\n",
     9, "transforms[1].sdt=0.1: Noise takes no argument 'sdt'. Did you mean 'std'?"),
    (f"{CHAIN}      - _target_: owncode.data.Noize\n", 7, "has no class or function 'Noize'. Did you mean 'Noise'?"),
    # where a group is overridden
    ("defaults:\n  - override /modle: mnist_convnet\n", 3, "does not exist: 'modle'. Did you mean 'model'?"),
    ("defaults:\n  - override /logger: [csv, tensorbord]\n", 3, "no logger 'tensorbord'. Did you mean 'tensorboard'?"),
    ("defaults:\n  - override /model: mnist_convnet\nmodel:\n  net:\n    channls: [8]\n", 6, "Did you mean 'channels'"),
    ("defaults:\n  - override /trainer: ddp\ntrainer:\n  devises: 2\n", 5, "Did you mean 'devices'?"),
    # in blocks with _partial_
    (f"{LIT}  optimizer:\n    _target_: torch.optim.AdamW\n    _partial_: true\n    beta: [0.9, 0.99]\n", 9,
     "AdamW takes no argument 'beta'. Did you mean 'betas'?"),
    (f"{LIT}  scheduler:\n    _target_: owncode.lit.cosine\n    _partial_: true\n    warm_up: 3\n", 9,
     "cosine takes no argument 'warm_up'. Did you mean 'warmup'?"),
    (f"{LIT}  optimizer:\n    _target_: owncode.lit.MySGD\n    _partial_: true\n    nestrov: true\n", 9,
     "MySGD takes no argument 'nestrov'. Did you mean 'nesterov'?"),
    (f"{LIT}  optimizer:\n    _target_: torch.optim.AdamW\n    _partail_: true\n", 8, "Did you mean '_partial_'?"),
    # arguments of a base
    ("data:\n  _target_: owncode.data.FolderData\n  batchsize: 8\n", 4,
     "FolderData takes no argument 'batchsize'. Did you mean 'batch_size'?"),
    ("data:\n  _target_: owncode.data.FolderData\n  rot: .\n", 4, "no argument 'rot'. Did you mean 'root'"),
    (f"{LIT}callbacks:\n  own:\n    _target_: owncode.callbacks.Best\n    save_topk: 3\n", 9,
     "Did you mean 'save_top_k'?"),
    # below a registry
    ("model:\n  _target_: owncode.idioms.Registered\n  width: 3\n  los: null\n", 5, "Did you mean 'loss'"),
    # in interpolations
    (f"{DATA}  batch_size: ${{data.num_worker}}\n", 4, "does not exist. Did you mean 'data.num_workers'?"),
    (f"{DATA}  num_workers: ${{trainer.max_epoch}}\n", 4, "does not exist. Did you mean 'trainer.max_epochs'?"),
    (f"{DATA}  data_dir: ${{paths.data_dri}}points\n", 4, "does not exist. Did you mean 'paths.data_dir'?"),
    (f"{LIT}callbacks:\n  early_stopping:\n    monitor: ${{monitorr}}\n", 8, "does not exist. Did you mean 'monitor'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "number", "said"), TYPOS)
def test_a_typo_in_a_file_of_ones_own(text: str, number: int, said: str, tmp_path: Path) -> None:
    assert said in finding_in_file(text, number, tmp_path)


def test_there_are_fifty() -> None:
    assert len(TYPOS) >= 50


def test_a_typo_in_a_search_of_ones_own(tmp_path: Path) -> None:
    text = "# @package _global_\ndefaults: [mnist_optuna, _self_]\noptimized_metrc: val/acc\n"
    (line,) = findings(*with_file(tmp_path, "hparams_search/ours.yaml", text), "hparams_search=ours")
    assert line.startswith(f"{tmp_path / 'hparams_search/ours.yaml'}:3: optimized_metrc=val/acc: ")
    assert line.endswith("Did you mean 'optimized_metric'?")


def test_a_missing_argument_and_a_missing_package_of_ones_own(tmp_path: Path) -> None:
    search = with_file(
        tmp_path, "experiment/ours.yaml", f"# @package _global_\n{PLAIN}  net: {{_target_: owncode.nets.WithEncoder}}\n"
    )
    lines = findings(*search, "experiment=ours")
    assert any("WithEncoder needs 'encoder'. Add model.net.encoder" in line for line in lines)
