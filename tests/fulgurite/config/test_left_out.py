"""A later file or override that names another class leaves out what was written for the former one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fulgurite.compat import hydra as compat
from fulgurite.config.left_out import take_messages
from fulgurite.config.tags import replace_tags, tag_names
from tests.support.cli import only_run, run_cli
from tests.support.compose import compose_raw, findings, with_file
from tests.support.own_code import own_package
from tests.support.project import ROOT


@pytest.fixture(scope="module", autouse=True)
def _own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_package(tmp_path_factory.mktemp("own")):
        yield


def composed(folder: Path, text: str, *overrides: str) -> tuple[dict[str, Any], list[str]]:
    """Return the config of an experiment file as written, and the messages about it; it must have no findings."""
    search = with_file(folder, "experiment/ours.yaml", f"# @package _global_\n{text}")
    assert findings(*search, "experiment=ours", *overrides) == []
    take_messages()
    cfg = compose_raw(*search, "experiment=ours", *overrides)
    content = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}, take_messages()


def test_a_net_is_replaced_by_naming_another(tmp_path: Path) -> None:
    cfg, messages = composed(tmp_path, "model:\n  net:\n    _target_: owncode.nets.Small\n    width: 32\n")
    assert cfg["model"]["net"] == {"_target_": "owncode.nets.Small", "width": 32}
    place = f"{tmp_path}/experiment/ours.yaml"
    left_out = "input_size, lin1_size, lin2_size, lin3_size, output_size"
    replaced = "replaces SimpleDenseNet (configs/model/mnist.yaml)"
    assert messages == [f"model.net: Small ({place}) {replaced}; left out {left_out}"]


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "scheduler without _partial_": (
        "model: {scheduler: {_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1, total_steps: 40}}",
        "model.scheduler",
        {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "_partial_": True, "max_lr": 0.1, "total_steps": 40},
    ),
    "factory of an optimizer, called at once": (
        "model: {optimizer: {_target_: owncode.nets.make_optimizer, name: sgd}}",
        "model.optimizer",
        {"_target_": "owncode.nets.make_optimizer", "name": "sgd", "lr": 0.001},
    ),
    "factory that takes anything": (
        "model: {net: {_target_: owncode.nets.create_model, model_name: small, out: 10}}",
        "model.net",
        {"_target_": "owncode.nets.create_model", "model_name": "small", "out": 10},
    ),
    "factory whose signature is not known": (
        "model: {net: {_target_: owncode.nets.registered_small, num_classes: 10}}",
        "model.net",
        {"_target_": "owncode.nets.registered_small", "num_classes": 10},
    ),
    "arguments of the base": (
        "model: {net: {_target_: owncode.nets.Wide, dropout: 0.5}}",
        "model.net",
        {"_target_": "owncode.nets.Wide", "dropout": 0.5},
    ),
    "callback": (
        "callbacks: {early_stopping: {_target_: lightning.pytorch.callbacks.Timer, duration: '00:01:00:00'}}",
        "callbacks.early_stopping",
        {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "00:01:00:00"},
    ),
    "augmentation of another group": (
        "data: {augment: {_target_: torch.nn.Dropout, p: 0.1}}",
        "data.augment",
        {"_target_": "torch.nn.Dropout", "p": 0.1},
    ),
    "the same class under another name": (
        "model: {optimizer: {_target_: torch.optim.adam.Adam}}",
        "model.optimizer",
        {
            "_target_": "torch.optim.adam.Adam", "_partial_": True, "lr": 0.001, "weight_decay": 0.0, "fused": True,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_block_is_replaced(name: str, tmp_path: Path) -> None:
    text, key, expected = CASES[name]
    cfg, messages = composed(tmp_path, text)
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    assert node == expected
    assert len(messages) == (name != "the same class under another name")


def test_a_net_of_another_shape_takes_no_value_that_its_annotation_excludes(tmp_path: Path) -> None:
    # `channels` of the shipped net is a list; another class may want one number
    file = tmp_path / "owncode_late.py"
    file.write_text("class Net:\n    def __init__(self, channels: int = 3, hidden_size: int = 4): ...\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        cfg, messages = composed(tmp_path, "model: {net: {_target_: owncode_late.Net}}", "model=mnist_convnet")
    assert cfg["model"]["net"] == {"_target_": "owncode_late.Net", "hidden_size": 64}
    assert "left out in_channels, channels, image_size, output_size" in messages[0]


UNREADABLE = """
import functools
from typing import NamedTuple
class Base:
    def __init__(self, input_size=1, output_size=2): ...
class Encoder:
    def __init__(self, lin1_size=1, **kwargs): super().__init__(**kwargs)
def keep(cls): return cls
def deco(cls): return keep(cls)
def mixin(base): return type("Mixed", (base,), {})
@deco
class Decorated(Base): pass
@deco
class Passing(Encoder, Base):
    def __init__(self, **kwargs): super().__init__(**kwargs)
if len("ab") == 2:
    class Chosen(Base): pass
else:
    class Chosen: pass
class Walrus(Other := Base): pass
class Mixed(mixin(Base)): pass
class Fields(NamedTuple):
    input_size: int = 1
    output_size: int = 2
Partial = functools.partial(Base, output_size=2)
def lost(function): return lambda *args, **kwargs: function(*args, **kwargs)
@lost
def wrapped(input_size=1, output_size=2): return Base(input_size, output_size)
"""


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        *((name, "") for name in ("Decorated", "Chosen", "Walrus", "Mixed", "Fields", "Partial")),
        ("Passing", "lin1_size"),
        ("wrapped", "lin1_size lin2_size lin3_size"),  # the object does not show what it takes
    ],
)
def test_only_what_the_object_does_not_take_is_left_out_where_source_does_not_show_it(
    name: str, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owncode_unreadable.py").write_text(UNREADABLE)
    monkeypatch.syspath_prepend(tmp_path)
    cfg, _ = composed(tmp_path, f"model: {{net: {{_target_: owncode_unreadable.{name}}}}}")
    sys.modules.pop("owncode_unreadable", None)
    assert set(cfg["model"]["net"]) == {"_target_", "input_size", "output_size", *taken.split()}


def test_keys_stay_where_the_object_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owncode_broken.py").write_text("class Net(make()):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg, messages = composed(tmp_path, "model: {net: {_target_: owncode_broken.Net}}")
    assert {"input_size", "lin1_size"} <= set(cfg["model"]["net"])
    assert messages == []


def test_keys_of_the_file_that_replaces_are_held_to_the_new_class(tmp_path: Path) -> None:
    text = "# @package _global_\nmodel:\n  net:\n    _target_: owncode.nets.Small\n    widht: 3\n    lin1_size: 8\n"
    search = with_file(tmp_path, "experiment/ours.yaml", text)
    lines = findings(*search, "experiment=ours")
    assert [line.partition("ours.yaml:")[2][:1] for line in lines] == ["5", "6"]
    assert "Small takes no argument 'widht'. Did you mean 'width'?" in lines[0]
    assert "Small takes no argument 'lin1_size'" in lines[1]


@pytest.mark.parametrize("last", [0, 1], ids=["before", "after"])
def test_the_order_on_the_command_line_does_not_matter(last: int) -> None:
    target, key = "model.net._target_=owncode.nets.Small", "model.net.lin1_size=8"
    (line,) = findings(*([target, key] if last else [key, target]))
    assert line.startswith(f"command line: {key}: ")
    assert findings(target, "+model.net.width=8") == []
    assert findings("+model.net={_target_: owncode.nets.Small, width: 8}") == []
    (line,) = findings(target, "+model.net.widht=8")
    assert "Did you mean 'width'?" in line


def test_an_override_replaces_what_an_experiment_set() -> None:
    assert findings("experiment=example", "model.net._target_=owncode.nets.Small") == []
    assert findings("experiment=example", "model.optimizer._target_=torch.optim.SGD", "model.scheduler=null") == []


def test_other_keys_of_hydra_go_with_the_replaced_target(tmp_path: Path) -> None:
    net = "{_target_: owncode.nets.Encoder, _convert_: all, _recursive_: false, _args_: [[784, 8]]}"
    search = with_file(tmp_path, "model/args.yaml", f"defaults: [classifier, _self_]\nnet: {net}\n")
    assert set(compose_raw(*search, "model=args").model.net) == {"_target_", "_convert_", "_recursive_", "_args_"}
    cfg = compose_raw(*search, "model=args", "model.net._target_=owncode.nets.Small")
    assert OmegaConf.to_container(cfg.model.net) == {"_target_": "owncode.nets.Small"}


def test_nothing_changes_where_no_target_is_replaced() -> None:
    ours = compose_raw("experiment=example", "debug=limit", "callbacks=[default,ema]")
    wrapped = {name: getattr(compat.ConfigLoaderImpl, name) for name in (compat.COMPOSES, compat.APPLIES)}
    with pytest.MonkeyPatch.context() as patch:
        for name, method in wrapped.items():
            plain = inspect.unwrap(method)
            patch.setattr(compat.ConfigLoaderImpl, name, staticmethod(plain) if name == compat.APPLIES else plain)
        plain_cfg = compose_raw("experiment=example", "debug=limit", "callbacks=[default,ema]")
    assert OmegaConf.to_container(ours, resolve=False) == OmegaConf.to_container(plain_cfg, resolve=False)
    assert [*ours] == [*plain_cfg]
    assert inspect.unwrap(wrapped[compat.COMPOSES]) is not wrapped[compat.COMPOSES]


@pytest.mark.parametrize("recipe", sorted(file.stem for file in (ROOT / "configs/debug").glob("*.yaml")))
def test_debug_recipes_set_only_what_a_class_takes(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "owncode_debug.py").write_text(
        "class Data:\n    def __init__(self, workers=2): ...\n"
        "class Model:\n    def __init__(self, **kwargs): keep(kwargs)\n"
    )
    text = "data: {_target_: owncode_debug.Data}\nmodel: {_target_: owncode_debug.Model, lr: 1}"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        cfg, _ = composed(tmp_path, text, f"debug={recipe}")
    assert (cfg["data"], cfg["model"]) == (
        {"_target_": "owncode_debug.Data"},
        {"_target_": "owncode_debug.Model", "lr": 1},
    )
    shipped = compose_raw(f"debug={recipe}")
    assert (shipped.model.compile, shipped.data.num_workers) == (False, 0)


def test_the_saved_and_the_resumed_config_is_the_one_that_runs(tmp_path: Path) -> None:
    text = (
        "# @package _global_\nmodel:\n  scheduler_interval: step\n  scheduler:\n"
        "    _target_: torch.optim.lr_scheduler.OneCycleLR\n    max_lr: 0.01\n    total_steps: 16\n"
    )
    with_file(tmp_path / "mine", "experiment/cycle.yaml", text)
    small = ("+trainer.limit_train_batches=4", "+trainer.limit_val_batches=1", "test=false", "model.net.lin1_size=8")
    mine = (f"--config-dir={tmp_path}/mine", "experiment=cycle", *small)
    done = run_cli("train", *mine, "trainer.max_epochs=1", logs=tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    folder = only_run(tmp_path / "logs")
    message = f"model.scheduler: OneCycleLR ({tmp_path}/mine/experiment/cycle.yaml) replaces ReduceLROnPlateau"
    assert f"{message} (configs/model/classifier.yaml); left out mode, factor, patience" in (
        folder / "train.log"
    ).read_text().replace("\n", " ")
    saved = OmegaConf.load(folder / ".hydra/config.yaml")
    keys = {"_target_", "_partial_", "max_lr", "total_steps"}
    assert set(saved.model.scheduler) == keys
    done = run_cli("train", f"--config-dir={tmp_path}/mine", f"resume={folder}", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert set(OmegaConf.load(folder / ".hydra/config.yaml").model.scheduler) == keys
    assert only_run(tmp_path / "logs") == folder


def test_each_job_of_a_sweep_over_targets_gets_its_own_keys(tmp_path: Path) -> None:
    small = ("trainer.max_epochs=1", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1", "test=false")
    values = "model.optimizer._target_=torch.optim.Adam,torch.optim.RMSprop"
    done = run_cli("train", "-m", values, *small, logs=tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    configs = sorted((tmp_path / "logs/train/multiruns").glob("*/*/.hydra/config.yaml"))
    assert ["fused" in OmegaConf.load(path).model.optimizer for path in configs] == [True, False]
    log = (configs[1].parents[1] / "train.log").read_text().replace("\n", " ")
    assert "RMSprop (command line) replaces Adam; left out fused" in log
    assert log.index("job 1 in ") < log.index("RMSprop (command line)")


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("tags: [mnist, small]", (), ["mnist", "small"]),
        ("tags: [mnist]", ("+tags.ablation=true",), ["mnist", "ablation"]),
        ("tags: [mnist]", ("tags.mnist=false", "+tags.b=true"), ["b"]),
        ("tags: {mnist: true}", (), ["dev", "mnist"]),
        ("tags: {mnist: true}", tuple(replace_tags(["tags=[a,b]"])), ["a", "b"]),
        ("tags: {mnist: true}", tuple(replace_tags(["tags={a:true,dev:false}"])), ["mnist", "a"]),
        ("tags: [mnist]", tuple(replace_tags(["tags={a:true}"])), ["mnist", "a"]),
        ("tags: [mnist]", ("+tags={a:true}",), ["mnist", "a"]),
        ("tags: [mnist]", tuple(replace_tags(["tags=[x]", "+tags.y=true"])), ["x", "y"]),
    ],
)
def test_tags_are_a_list_or_a_dictionary_in_files_and_on_the_command_line(
    text: str, overrides: tuple[str, ...], expected: list[str], tmp_path: Path
) -> None:
    cfg, _ = composed(tmp_path, text, *overrides)
    assert tag_names(OmegaConf.create({"tags": cfg["tags"]})) == expected


def test_settings_of_a_logger_that_is_off_are_left_out_of_the_config(tmp_path: Path) -> None:
    cfg, messages = composed(tmp_path, "logger: {wandb: {project: x}}\ncallbacks: {rich_bar: {theme: a}}")
    assert cfg["logger"] == {}
    assert "rich_bar" not in cfg["callbacks"]
    assert messages == [
        "callbacks.rich_bar: has no _target_ and is left out",
        "logger.wandb: has no _target_ and is left out. To use it, choose it with logger=wandb",
    ]
