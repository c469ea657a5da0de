"""Every config file composes; those of the template are valid and build, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from fulgurite import UserError, build, compose, project_root, validate
from tests.conftest import ComposeSmall, callbacks_of
from tests.support.project import CONFIGS, shipped, shipped_options

GROUPS = [
    *("callbacks", "data", "extras", "resilience", "distributed", "logger", "model", "paths", "trainer"),
    *("debug", "experiment", "hparams_search", "optimizer", "scheduler"),
]
SHIPPED = [(group, option) for group in GROUPS for option in shipped_options(group)]
IN_GROUPS = [
    path for path in CONFIGS.rglob("*.yaml") if path.parent not in {CONFIGS, CONFIGS / "local", CONFIGS / "hydra"}
]
YOURS = sorted(set(IN_GROUPS) - set(shipped(IN_GROUPS)))
INCOMPLETE = {("model", "classifier")}  # a recipe without a net
# what the machine may lack, and the error that reports it
LACKING = {
    ("trainer", "gpu"): "trainer.accelerator=gpu: this machine has no CUDA or MPS device. Set trainer=cpu.",
    ("trainer", "ddp"): "trainer.accelerator=gpu: this machine has no CUDA or MPS device. Set trainer=cpu.",
    ("trainer", "fsdp"): "trainer.accelerator=gpu: this machine has no CUDA or MPS device. Set trainer=cpu.",
    ("trainer", "tensor_parallel"): "trainer.accelerator=gpu: this machine has no CUDA or MPS device. Set trainer=cpu.",
    ("trainer", "mps"): "trainer.accelerator=mps: this machine has no MPS device. Set trainer=cpu.",
    ("trainer", "tpu"): "trainer.accelerator=tpu: torch_xla finds no TPU here",
    ("logger", "neptune"): "Neptune has been sunset",
}
NEEDS = {"mlflow": "mlflow", "wandb": "wandb", "comet": "comet_ml", "aim": "aim", "many_loggers": "mlflow"}


def test_each_of_your_configs_composes(tmp_path: Path) -> None:
    refused: dict[str, str] = {}
    for path in YOURS:
        # a folder in a group is a group of its own, or part of the file's name; a group that the template does not have
        # is added; a file may refer to keys of another one
        group, name = path.parent.relative_to(CONFIGS).as_posix(), path.relative_to(CONFIGS).with_suffix("").as_posix()
        forms = {"{}={}".format(*name.split("/", 1)): name.split("/")[0], f"{group}={path.stem}": group}
        words = [f"{'' if first in GROUPS else '+'}{word}" for word, first in forms.items()]
        errors = dict[str, str]()
        for word in words:
            if not (error := _error_of(word, tmp_path)):
                break
            errors[word] = error
        else:
            refused |= errors
    assert refused == {}


def _error_of(word: str, folder: Path) -> str:
    try:
        assert OmegaConf.to_container(compose([word], output_dir=folder), resolve=False)
    except Exception as error:  # noqa: BLE001  # Hydra and OmegaConf raise many kinds
        return str(error)
    return ""


@pytest.mark.parametrize(("group", "option"), SHIPPED)
def test_every_config_composes_and_is_valid_or_names_what_is_missing(group: str, option: str, tmp_path: Path) -> None:
    cfg = compose([f"{group}={option}"], output_dir=tmp_path)
    assert OmegaConf.to_container(cfg, resolve=True)
    if (group, option) in INCOMPLETE:
        with pytest.raises(UserError, match=r"model\.net: missing"):
            validate(cfg)
        return
    try:
        validate(cfg)
    except UserError as error:
        message = str(error)
    else:
        return
    # only a missing optional logger is accepted, and the error names the extra to install
    extra = option if option != "many_loggers" else "mlflow"
    assert LACKING.get((group, option), f'".[{extra}]"') in message
    assert group == "logger"


@pytest.mark.parametrize("name", shipped_options("trainer"))
def test_every_trainer_builds_or_is_one_line(name: str, small: ComposeSmall) -> None:
    cfg = small(f"trainer={name}")
    try:
        run = build(cfg)
    except UserError as error:
        message = str(error)
    else:
        assert run.trainer.max_epochs == 1
        assert run.trainer.num_devices == cfg.trainer.devices
        return
    assert LACKING["trainer", name] in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in shipped_options("callbacks") if name != "none"])
def test_every_callback_config_builds(name: str, small: ComposeSmall) -> None:
    cfg = small(f"callbacks={name}")
    wanted = {node["_target_"].rsplit(".", 1)[1] for node in cfg.callbacks.values()}
    classes = {type(callback).__name__ for callback in callbacks_of(build(cfg).trainer)}
    renamed = {"progress_bar": "EpochLines", "model_summary": "ParameterSummary"}  # no terminal here
    assert {renamed.get(name, name) for name in wanted} <= classes


def test_the_best_and_the_last_checkpoint_are_two_callbacks(small: ComposeSmall) -> None:
    checkpoints = [c for c in build(small()).trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    assert [(c.monitor, c.filename) for c in checkpoints] == [("val/acc", "best-{epoch:03d}"), (None, "last")]


@pytest.mark.parametrize("name", shipped_options("data"))
def test_every_data_config_builds(name: str, small: ComposeSmall) -> None:
    run = build(small(f"data={name}"))
    assert getattr(run.datamodule, "batch_size", None) == run.cfg.data.batch_size


@pytest.mark.parametrize("experiment", shipped_options("experiment"))
@pytest.mark.parametrize("debug", shipped_options("debug"))
def test_debug_wins_over_every_experiment(experiment: str, debug: str, tmp_path: Path) -> None:
    alone = compose([f"debug={debug}"], output_dir=tmp_path)
    both = compose([f"experiment={experiment}", f"debug={debug}"], output_dir=tmp_path)
    validate(both)
    texts = [(CONFIGS / "debug" / f"{name}.yaml").read_text() for name in {"default", debug}]
    files = [OmegaConf.create(text) for text in texts]
    keys = {key for file in files for key in _leaves(file) if not key.startswith(("hydra", "defaults"))}
    assert keys
    for key in keys:
        assert OmegaConf.select(both, key) == OmegaConf.select(alone, key), key
    assert both.task_name == "debug"


def _leaves(node: object, prefix: str = "") -> list[str]:
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict):
        return [prefix]
    return [leaf for key, child in plain.items() for leaf in _leaves(child, f"{prefix}.{key}" if prefix else str(key))]


def test_a_local_config_is_merged_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # in a copy: tests of other processes compose the project's own configs
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / ".project-root").touch()
    local = tmp_path / "configs" / "local" / "default.yaml"
    local.unlink(missing_ok=True)
    monkeypatch.setenv("PROJECT_ROOT", str(tmp_path))
    project_root.cache_clear()
    try:
        assert compose(output_dir=tmp_path).trainer.max_epochs == 20
        local.write_text("# @package _global_\ntrainer:\n  max_epochs: 77\n")
        assert compose(output_dir=tmp_path).trainer.max_epochs == 77
        # debug comes later still
        assert compose(["debug=default"], output_dir=tmp_path).trainer.max_epochs == 1
    finally:
        project_root.cache_clear()
