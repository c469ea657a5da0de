"""Each mistake of a list is caught with the right suggestion and its place; everything that is shipped passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fulgurite.config.left_out import group_keys
from fulgurite.config.schema import TOP_LEVEL
from fulgurite.core.errors import suggest_path
from fulgurite.validation.rules import NESTED
from fulgurite.validation.validate import find_problems
from tests.support.compose import compose_raw, finding_in_file, findings, with_file
from tests.support.project import CONFIGS, shipped, shipped_options

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))

# on the command line: (overrides, what the one line says)
TYPED = [
    ("trainer.max_epoch=3", "there is no such key. Did you mean 'trainer.max_epochs'"),
    ("max_epochs=3", "there is no such key. Did you mean 'trainer.max_epochs'?"),
    ("lr=0.1", "there is no such key. Did you mean 'model.optimizer.lr'?"),
    ("sed=1", "there is no such key. Did you mean 'seed'?"),
    ("trainr.max_epochs=1", "there is no such key. Did you mean 'trainer"),
    ("data.batchsize=32", "there is no such key. Did you mean 'data.batch_size'?"),
    ("model.net.lin1_sise=8", "there is no such key. Did you mean 'model.net.lin1_size'"),
    ("model.net.depth=3", "there is no such key. model.net has input_size, lin1_size"),
    ("data.depth=3", "there is no such key. data has name, data_dir"),
    ("hydra.jbo.name=x", "there is no such key. Did you mean 'hydra.job"),
    ("trainer.gradient_clip_val=0.5", "not in the config yet. Add it with +trainer.gradient_clip_val=0.5"),
    ("trainer.gradient_clip_vl=0.5", "there is no such key. Did you mean 'trainer.gradient_clip_val'"),
    ("+trainer.max_epochs=3", "trainer.max_epochs is in the config already. Leave out the +"),
    ("trainer.max_epochs.x=3", "trainer.max_epochs is a value, so it has no 'x'. Remove it"),
    ("train.seed=3", "train is a value, so it has no 'seed'. Did you mean 'seed'?"),
    ("train.trainer.max_epochs=3", "it has no 'trainer.max_epochs'. Did you mean 'trainer.max_epochs'?"),
    ("model.optimizer.wd=1", "there is no such key. model.optimizer has lr, weight_decay,"),
    ("vars.a=3", "not in the config yet. Add it with +vars.a=3"),
    ("callbacks.ema=true", "ema is not chosen. Choose it with callbacks=[default,ema]"),
    ("callbacks.ema.decay=0.9", "ema is not chosen. Choose it with callbacks=[default,ema]"),
    ("logger.wandb.name=x", "wandb is not chosen. Choose it with logger=wandb"),
    ("logger._target_=lightning.pytorch.loggers.CSVLogger", "each below its name. Choose one with logger=csv"),
    ("callbacks._target_=src.a.B", "each below its name. Add one with +callbacks.<name>._target_=..."),
    ("trainer.max_epochs =3", "a space stands around =. Write trainer.max_epochs=3"),
    ("resume.run.x=3", "resume.run is null, so it has no 'x'. Set all of it, 'resume.run={x: ...}'"),
    ("~callbacks.early_stoping", "there is no such key. Did you mean 'callbacks.early_stopping'?"),
    ("modle=mnist", "there is no such key. Did you mean 'model'?"),
    ("trainer=gpux", "there is no trainer 'gpux'. Did you mean 'gpu'?"),
    ("experiment=exmple", "there is no experiment 'exmple'. Did you mean 'example'?"),
    ("logger=wandbb", "there is no logger 'wandbb'. Did you mean 'wandb'?"),
    (
        "model.net={width: 3}",
        "model.net lacks some of these keys. Add them with '+model.net={width: 3}', or replace it",
    ),
    ("hydra/launcher=basc", "there is no hydra/launcher 'basc'. Did you mean 'basic'?"),
    ("data.batch_size=1,2", "Add -m to run one job each, or write 'data.batch_size=[1,2]' for a list"),
    ("trainer.max_epochs", "has no value. Write trainer.max_epochs=<value>"),
    ("seed=[1,", "no value follows the comma"),
    ("hydra.job.num=abc", "value 'abc' of type 'str' could not be converted to Integer"),
    ("+model.new_param=owo", "Classifier takes no argument 'new_param'. It takes net, num_classes"),
    ("+model.optimiser=1", "Classifier takes no argument 'optimiser'. Did you mean 'optimizer'?"),
    ("+model.optimizer.weight_dcay=0.1", "Adam takes no argument 'weight_dcay'. Did you mean 'weight_decay'"),
    ("+callbacks.early_stopping.patiense=5", "EarlyStopping takes no argument 'patiense'. Did you mean 'patience'?"),
    ("+trainer.max_epoch=3", "Trainer takes no argument 'max_epoch'. Did you mean 'max_epochs'"),
    ("+data.batch_sise=3", "MNISTDataModule takes no argument 'batch_sise'. Did you mean 'batch_size'"),
    ("+paths.datadir=/x", "nothing reads this key. Did you mean 'paths.data_dir'?"),
    ("+extras.print_cfg=true", "nothing reads this key. Did you mean 'extras.print_config'?"),
    ("+ckpt_pth=x", "nothing reads this key. Did you mean 'ckpt_path'"),
    ("model.optimizer._target_=torch.optim.Adamm", "torch.optim has no class or function 'Adamm'. Did you mean 'Adam'"),
    ("model.optimizer._target_=torch.optm.Adam", "torch has no module 'optm'. Did you mean 'optim'"),
    ("trainer._target_=lightnin.pytorch.Trainer", "there is no package 'lightnin'. Did you mean 'lightning'"),
    (
        "model.net._target_=src.models.nets.dens.SimpleDenseNet",
        "src.models.nets has no module 'dens'. Did you mean 'dense'",
    ),
    ("model.net._target_=torch.nn", "torch.nn is a module. Name a class or a function in it"),
    ("+model.optimizer._partal_=true", "Adam takes no argument '_partal_'. Did you mean '_partial_'"),
]

# in an experiment file: (its text below the package line, line number, what the one line says)
WRITTEN = [
    ("sed: 1\n", 2, "sed=1: nothing reads this key. Did you mean 'seed'?"),
    (
        "early_stoppin: {patience: 1}\n",
        2,
        "early_stoppin: nothing reads this key. Did you mean 'callbacks.early_stopping'?",
    ),
    ("ckpt_pth: x\n", 2, "ckpt_pth=x: nothing reads this key. Did you mean 'ckpt_path'"),
    (
        "callbacks:\n  early_stoping: {patience: 1}\n",
        3,
        "callbacks.early_stoping: has no _target_, so it is not a callback. Did you mean 'early_stopping'?",
    ),
    (
        "callbacks:\n  early_stopping:\n    patiense: 1\n",
        4,
        "callbacks.early_stopping.patiense=1: EarlyStopping takes no argument 'patiense'. Did you mean 'patience'?",
    ),
    (
        "defaults:\n  - override /logger: csv\nlogger:\n  csv:\n    save_dirr: x\n",
        6,
        "logger.csv.save_dirr=x: CSVLogger takes no argument 'save_dirr'. Did you mean 'save_dir'?",
    ),
    ("logger:\n  csvv: {save_dir: x}\n", 3, "logger.csvv: has no _target_, so it is not a logger. Did you mean 'csv'?"),
    (
        "trainer:\n  max_epoch: 3\n",
        3,
        "trainer.max_epoch=3: Trainer takes no argument 'max_epoch'. Did you mean 'max_epochs'",
    ),
    ("model:\n  net:\n    lin4_size: 3\n", 4, "SimpleDenseNet takes no argument 'lin4_size'. Did you mean 'lin"),
    ("data:\n  batch_sze: 3\n", 3, "MNISTDataModule takes no argument 'batch_sze'. Did you mean 'batch_size'"),
    ("paths:\n  datadir: x\n", 3, "paths.datadir=x: nothing reads this key. Did you mean 'paths.data_dir'?"),
    (
        "extras:\n  print_cfg: true\n",
        3,
        "extras.print_cfg=true: nothing reads this key. Did you mean 'extras.print_config'?",
    ),
    ("trainer:\n  max_epochs: 1.5\n", 3, "trainer.max_epochs=1.5: Trainer wants a whole number or null"),
    ("data:\n  num_classes: ${data.num_clases}\n", 3, "${data.num_clases} refers to a key that does not exist"),
    (
        "defaults:\n  - override /modle: mnist\n",
        3,
        "overrides a group that does not exist: 'modle'. Did you mean 'model'?",
    ),
    ("defaults:\n  - override /model: mnst\n", 3, "there is no model 'mnst'. Did you mean 'mnist'"),
    ("defaults:\n  - nothere\n", 3, "there is no experiment 'nothere'"),
    ("seed: 1\n  x: [1\n", 3, "not valid YAML: mapping values are not allowed"),
    ("seed: 1\nseed: 2\n", 3, "not valid YAML: found duplicate key seed"),
    ("trainer: [a]\n", 2, "a list stands where the config has a dictionary"),
]


@pytest.mark.parametrize(
    ("wrong", "suggested"),
    [
        ("data.num_folds", ""),
        ("data.max_steps", ". Did you mean 'trainer.max_steps'?"),
        ("data.max_stesp", ""),
        ("max_stesp", ". Did you mean 'trainer.max_steps'?"),
        ("trainr.max_stesp", ". Did you mean 'trainer.max_steps'?"),
        ("model.widht", ". Did you mean 'model.net.width'?"),
        ("model.net.depth", ""),
    ],
)
def test_another_group_is_suggested_for_a_key_of_the_same_name_only(wrong: str, suggested: str) -> None:
    paths = ["trainer", "trainer.num_nodes", "trainer.max_steps", "data", "data.batch_size", "model.net.width"]
    assert suggest_path(wrong, paths) == suggested


@pytest.mark.parametrize(("override", "said"), TYPED)
def test_a_mistyped_override_is_refused_with_the_right_name(override: str, said: str) -> None:
    (line,) = findings(override)
    assert line.startswith(f"command line: {override}: ")
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize(("text", "number", "said"), WRITTEN)
def test_a_mistake_in_a_file_is_refused_with_file_line_and_the_right_name(
    text: str, number: int, said: str, tmp_path: Path
) -> None:
    assert said in finding_in_file(text, number, tmp_path)


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    search = with_file(tmp_path, "experiment/typo.yaml", "# @package _global_\nsed: 1\ntrainer:\n  max_epoch: 3\n")
    lines = findings(*search, "experiment=typo", "trainer=gpux", "modle=mnist", "lr=0.1", "seed=abc", "a=[")
    assert len(lines) == 7
    errors = "\n".join(lines)
    for part in (
        "a=[",
        "'gpux'",
        "modle=mnist",
        "lr=0.1",
        "seed=abc: must be a whole number",
        "typo.yaml:2",
        "typo.yaml:4",
    ):
        assert part in errors


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("-m", "trainer=cpu,gpux", "seed=1,2"), "there is no trainer 'gpux'. Did you mean 'gpu'?"),
        (("-m", "experiment=glob(*)", "sed=1,2"), "sed=1,2: there is no such key. Did you mean 'seed'?"),
        (("-m", "experiment=glob(nothing*)"), f"no experiment matches. There is {EXPERIMENTS[0]}"),
        (("-m", "trainer=null,gpux"), "there is no trainer 'gpux'. Did you mean 'gpu'?"),
        (("data=mnist,mnist_sample",), "data=mnist,mnist_sample: several values. Add -m to run one job each"),
        (("-m", "trainer.max_epoch=1,2", "data.batch_size=1,2"), "Did you mean 'trainer.max_epochs'"),
    ],
)
def test_a_sweep_is_explained_as_a_run_is(overrides: tuple[str, ...], said: str) -> None:
    (line,) = findings(*overrides)
    assert said in line


# tests/test_configs.py holds every shipped config to the checks, without the part that is Hydra's own
FOR_HYDRA = [(group, option) for group in ("debug", "hparams_search") for option in shipped_options(group)]


@pytest.mark.parametrize(("group", "option"), FOR_HYDRA)
def test_every_shipped_config_passes_with_what_it_sets_of_hydra(group: str, option: str) -> None:
    assert find_problems(compose_raw(f"{group}={option}")) == []
    assert set(FOR_HYDRA) >= {
        (path.parent.name, path.stem)
        for path in shipped(CONFIGS.glob("*/*.yaml"))
        if "hydra:" in path.read_text() and path.parent.name not in {"hydra", "paths"}  # part of every config
    }


def test_the_entry_points_and_the_checks_have_the_same_keys() -> None:
    declared = {key for file in shipped(CONFIGS.glob("*.yaml")) for key in _top_keys(file)}
    assert declared <= set(TOP_LEVEL), "configs/ has a key that fulgurite/config/schema.py lacks"
    for group, types in NESTED.items():
        files = (yaml.safe_load((CONFIGS / name).read_text()) for name in ("run.yaml", "train.yaml"))
        at_the_door = {key for file in files for key in file.get(group) or ()}
        assert {*group_keys(group), *at_the_door} == set(types)


def _top_keys(file: Path) -> set[str]:
    lines = (line for line in file.read_text().splitlines() if line[:1].isalpha())
    return {line.partition(":")[0] for line in lines} - {"defaults"}
