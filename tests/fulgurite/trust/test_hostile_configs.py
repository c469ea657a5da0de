"""Configs from outside of the project that would run a program, steer Hydra, or read and write elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from fulgurite.config.compose import compose
from fulgurite.config.target_policy import check_targets
from fulgurite.core.context import current_context
from fulgurite.core.errors import ConfigError
from tests.support.cli import run_cli

EXPERIMENT = "# @package _global_\n"
# Each would create the file CANARY, or does what a foreign config may not.
TARGETS = [
    "os.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.open",
    "importlib.import_module",
    "shutil.copy",
    "pickle.loads",
    "ctypes.CDLL",
    "webbrowser.open",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "torch.load",
    "torch.utils.collect_env.run",
    "torch.distributed.run.main",
    "torch.utils.benchmark.Timer.timeit",
    "torch.distributed.checkpoint.FileSystemReader.read_metadata",
    "torch.utils.data.datapipes.iter.FileOpener",
    "torch.jit.load",
    "torch.nn.functional.torch.hub.load",
    "lightning.fabric.utilities.cloud_io._load",
    "lightning.pytorch.LightningModule.load_from_checkpoint",
    "src.models.classifier.Classifier.load_from_checkpoint",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "lightning.pytorch.loggers.WandbLogger",
    "lightning.pytorch.plugins.TorchCheckpointIO",
    "src.data.mnist.Path",
    "fulgurite.core.files.load_pickle",
    "fulgurite.main",
    "hydra.utils.instantiate",
    "tests.support.own_code.Lit",
    "logs.planted.module.Class",
    "numpy.fromfile",
    "optuna.create_study",
    "functools.partial",
    "src.models.classifier._private",
]
FORMS: dict[str, str] = {
    "plain": "model: {{net: {{_target_: {0}, _args_: [touch CANARY]}}}}",
    "partial": "model: {{net: {{_target_: {0}, _partial_: true}}}}",
    "listed": "callbacks: {{x: {{_target_: src.callbacks.X, inner: [[{{_target_: {0}}}]]}}}}",
    "alias": "vars: {{a: &a {{_target_: {0}}}}}\nmodel: {{net: *a}}",
    "merged": "vars: {{a: &a {{_target_: {0}}}}}\nmodel: {{net: {{<<: *a, x: 1}}}}",
    "referred": "vars: {{name: {0}}}\nmodel: {{net: {{_target_: '${{vars.name}}'}}}}",
    "pieced": "vars: {{end: '{0}'}}\nmodel: {{net: {{_target_: '${{vars.end}}${{vars.none}}'}}}}",
    "looked_up": "model: {{net: {{_target_: hydra.utils.get_method, path: {0}}}}}",
}


# Ways to write a value of an attack elsewhere than where it acts.
def _with_aliases(text: str) -> str:
    """Return a config whose values are aliases of anchors in another part of it."""
    content = yaml.safe_load(text)
    return yaml.dump({"vars": {"first": content}, **content}, default_flow_style=True, width=10_000)


def _with_references(text: str) -> str:
    """Return a config whose plain texts are references to texts in another part of it."""
    parts: dict[str, Any] = {}

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: node[key] if key == "defaults" else moved(node[key]) for key in node}
        if isinstance(node, list):
            return [moved(child) for child in node]
        if not isinstance(node, str) or "${" in node:
            return node
        parts[f"p{len(parts)}"] = node
        return f"${{moved.p{len(parts) - 1}}}"

    return yaml.safe_dump({**moved(yaml.safe_load(text)), "moved": parts})


VALUES = [
    # Hydra's own part
    "hydra: {job: {env_set: {LD_PRELOAD: x.so}}}",
    "hydra: {job: {env_copy: [AWS_SECRET_ACCESS_KEY]}}",
    "hydra: {job: {chdir: true}}",
    "hydra: {run: {dir: /tmp/elsewhere}}",
    "hydra: {run: {dir: '${paths.log_dir}/../../elsewhere'}}",
    "hydra: {sweep: {dir: '${paths.root_dir}/src'}}",
    "hydra: {output_subdir: ../x}",
    "hydra: {callbacks: {x: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}}",
    "hydra: {sweeper: {params: {model.net._target_: os.system}}}",
    "hydra: {launcher: {_target_: hydra_plugins.fulgurite.slurm.SlurmLauncher}}",
    "hydra: {searchpath: ['pkg://planted']}",
    "hydra: {job_logging: {handlers: {x: {class: logging.handlers.SocketHandler, host: h, port: 1}}}}",
    "hydra: {job_logging: {handlers: {x: {class: logging.handlers.HTTPHandler, host: h, url: /}}}}",
    "hydra: {job_logging: {handlers: {x: {class: logging.handlers.SMTPHandler, mailhost: h}}}}",
    "hydra: {job_logging: {handlers: {x: {(): 'ext://os.system', command: touch CANARY}}}}",
    "hydra: {job_logging: {handlers: {x: {class: logging.StreamHandler, stream: 'ext://os.environ'}}}}",
    "hydra: {job_logging: {handlers: {x: {class: logging.FileHandler, filename: /tmp/elsewhere.log}}}}",
    "hydra: {hydra_logging: {filters: {x: {(): subprocess.Popen, args: [touch, CANARY]}}}}",
    "defaults: [override /hydra/launcher: slurm]",
    "defaults: [override /hydra/sweeper: search]",
    "defaults: [{/callbacks@hydra.callbacks: default}]",
    "defaults: ['/model@hydra.job.env_set: mnist']",
    # resolvers
    "vars: {x: '${eval:1}'}",
    "vars: {x: '${oc.env:AWS_SECRET_ACCESS_KEY}'}",
    "vars: {x: '${oc.env:HOME,${oc.env:PATH}}'}",
    "vars: {x: '${oc.decode:\"{_target_: os.system}\"}'}",
    "model: {net: '${oc.create:{_target_: os.system}}'}",
    "vars: {name: eval, x: '${${vars.name}:1}'}",
    "vars: {x: '${ eval :1}'}",
    "vars: {x: ['a${hydra:job.name}b${secret:x}']}",
    "defaults: [{model: '${eval:1}'}]",
    # what is trusted, the environment and the network
    "trust: [/]",
    "trust_env: [HOME]",
    "extras: {allowed_targets: [os]}",
    "paths: {log_dir: /tmp/elsewhere}",
    "distributed: {comm_env: {LD_PRELOAD: x.so}}",
    "distributed: {init_method: 'tcp://evil:1'}",
    "resume: {run: /tmp/elsewhere}",
    "ckpt_path: https://evil.example/x.ckpt",
    "ckpt_path: /etc/passwd",
    "logger: {mlflow: {tracking_uri: evil.example}}",
    "logger: {csv: {_target_: lightning.pytorch.loggers.CSVLogger, save_dir: 's3://bucket/x'}}",
    "vars: {scheme: 's3:/', url: '${vars.scheme}/bucket'}",
    # files
    "callbacks: {model_checkpoint: {dirpath: '${paths.root_dir}/src'}}",
    "callbacks: {model_checkpoint: {dirpath: src}}",
    "callbacks: {model_checkpoint: {filename: ../../x}}",
    "callbacks: {model_checkpoint: {filename: '${vars.up}/x'}}\nvars: {dot: ., up: '${vars.dot}.'}",
    "trainer: {default_root_dir: ~/x}",
    "callbacks: {x: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, _args_: [src]}}",
    "callbacks: {x: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, _args_: ['${now:/etc}']}}",
    "callbacks: {x: {_target_: lightning.pytorch.callbacks.OnExceptionCheckpoint, _args_: [src]}}",
    "callbacks: {x: {_target_: lightning.pytorch.callbacks.EarlyStopping, _args_: [/etc/x]}}",
    "callbacks: {x: {_target_: '${vars.t}', _args_: [src]}}\nvars: {t: fulgurite.callbacks.LastCheckpoint}",
    "logger: {x: {_target_: lightning.pytorch.loggers.CSVLogger, _args_: [src]}}",
    "hydra: {run: {dir: '${paths.log_dir}/${now:../../../x}'}}",
    "vars: {x: '${oc.select:none,/etc}'}",
    "vars: {x: '${oc.select:none,\"/etc\"}'}",
    "vars: {x: '${hydra:run.dir}/../../y'}",
    "vars: {a: 'ext:/', x: '${vars.a}/y'}",
    "vars: {x: '" + "${seed}" * 300 + "'}",
    "vars: {a: 'ext:/'}\nhydra: {job_logging: {formatters: {x: {format: '${vars.a}/planted.x'}}}}",
    "logger: {wandb: {entity: evil}}",
    "data: {data_dir: /etc}",
    "data: {local_dirs: ['${paths.data_dir}', /root]}",
    "task_name: ../../elsewhere",
    "model: {weights_only: false}",
    "model: {inner: {weights_only: null}}",
    # a reference to a dictionary brings what is in it to another place
    "vars: {l: {handlers: {x: {(): os.system, command: touch CANARY}}}}\nhydra: {job_logging: '${vars.l}'}",
    "vars: {l: {(): os.system, command: touch CANARY}}\nhydra: {job_logging: {handlers: {x: '${vars.l}'}}}",
    "vars: {d: {comm_env: {LD_PRELOAD: x.so}}}\ndistributed: '${vars.d}'",
    "vars: {e: {allowed_targets: [os]}, f: '${.e}'}\nextras: '${vars.f}'",
    "vars: {r: {s: {resume: runs}}, t: '${vars.r}'}\nsweep: '${vars.t.s}'",
    "vars: {x: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, _args_: [src]}}\ncallbacks: {x: '${vars.x}'}",
    "vars: {a: '${vars.b}', b: {p: 's3:/', q: '/b'}}\ndata: {_args_: ['${vars.a.p}${vars.a.q}']}",
    "vars: {a: '${vars.b}', b: {x: '${vars.a}'}}\nmodel: {x: '${vars.a}'}",
    "defaults: [_self_, {/callbacks@model.net: default}]\nvars: {x: {lr: 1}}\nmodel: {net: '${vars.x}'}",
    # text that is an interpolation once it is resolved
    "vars: {a: $, b: '{eval:1}'}\nmodel: {extra: {x: '${vars.a}${vars.b}'}}",
    "vars: {a: '{eval:1}'}\nmodel: {extra: {x: \"${now:'$'}${vars.a}\"}}",
    "vars: {a: '\\${ev', b: 'al:1}'}\nmodel: {extra: {x: '${vars.a}${vars.b}'}}",
    "vars: {x: {/etc: 1}}\ndata: {_args_: '${oc.dict.keys:vars.x}'}",
    # names that replace the folder they are joined to
    "callbacks: {model_checkpoint: {filename: '${paths.data_dir}/x'}}",
    "callbacks: {model_checkpoint: {filename: '${paths.log_dir}/train/runs/other/checkpoints/last'}}",
    "logger: {csv: {name: '${paths.data_dir}/x'}}",
    "logger: {tensorboard: {sub_dir: '${paths.data_dir}/x'}}",
]


def refused(folder: Path, text: str, *, is_chosen: bool = True, name: str = "experiment/x") -> list[str]:
    """Write a config outside of the project, compose with it, and return the lines that refuse it."""
    file = folder / "foreign" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    canary = folder / "canary"
    file.write_text(EXPERIMENT + text.replace("CANARY", str(canary)))
    chosen = ["experiment=x"] if is_chosen else []
    with pytest.raises(ConfigError) as caught:
        compose([f"hydra.searchpath=[{folder}/foreign]", f"paths.log_dir={folder}/logs", *chosen])
    assert not canary.exists()
    assert caught.value.exit_code == 2
    for line in caught.value.findings:
        assert f"{folder}/foreign/" in line
        assert f"trust=[{folder}/foreign]." in line
        assert "\n" not in line
    return caught.value.findings


@pytest.mark.parametrize("target", TARGETS)
def test_a_foreign_config_names_no_function_that_does_something(target: str, tmp_path: Path) -> None:
    text = FORMS["plain"].format(target)
    try:
        lines = refused(tmp_path, text)
    except pytest.fail.Exception:  # the name alone may be allowed: then the object is judged before it is called
        with pytest.raises(ConfigError) as caught:
            check_targets(_composed(tmp_path, text))
        lines = caught.value.findings
    assert all(line.startswith("model.net._target_") for line in lines)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("target", ["os.system", "fulgurite.core.files.load_pickle"])
@pytest.mark.parametrize("form", FORMS)
def test_no_form_hides_a_target(form: str, target: str, tmp_path: Path) -> None:
    assert any("_target_=" in line or ".path=" in line for line in refused(tmp_path, FORMS[form].format(target)))


@pytest.mark.parametrize("text", VALUES)
def test_a_foreign_config_steers_nothing_beside_the_training(text: str, tmp_path: Path) -> None:
    refused(tmp_path, text)


@pytest.mark.slow
@pytest.mark.parametrize("text", VALUES)
def test_no_form_hides_a_value(text: str, tmp_path: Path) -> None:
    for number, written in enumerate((_with_aliases(text), _with_references(text))):
        (tmp_path / str(number)).mkdir()
        refused(tmp_path / str(number), written)
    folder = tmp_path / "included"
    (folder / "foreign" / "parts").mkdir(parents=True)
    (folder / "foreign" / "parts" / "inner.yaml").write_text(EXPERIMENT + text.replace("CANARY", f"{folder}/canary"))
    refused(folder, "defaults: [{/parts: inner}]\n")


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_no_form_hides_any_target(target: str, tmp_path: Path) -> None:
    for form, text in FORMS.items():
        folder = tmp_path / form
        folder.mkdir()
        written = text.format(target)
        try:
            refused(folder, written)
        except pytest.fail.Exception:  # as above: the name may be allowed, and the object is judged before its call
            with pytest.raises(ConfigError):
                check_targets(_composed(folder, written))
        assert not (folder / "canary").exists()


@pytest.mark.parametrize("target", ["sympy.lambdify", "yaml.safe_load", "operator.itemgetter"])
def test_only_a_trusted_config_names_any_installed_package(target: str, tmp_path: Path) -> None:
    text = FORMS["plain"].format(target)
    refused(tmp_path, text)
    check_targets(_composed(tmp_path, text, f"trust=[{tmp_path}/foreign]"))


def test_an_empty_own_config_leaves_the_values_below_it_foreign(tmp_path: Path) -> None:
    text = "defaults: [_self_, {/callbacks@model.net: none}]\nmodel: {net: {_target_: torch.utils.collect_env.run}}"
    cfg = _composed(tmp_path, text)
    with pytest.raises(ConfigError, match=r"^model\.net\._target_: 'torch\.utils.* is not a class"):
        check_targets(cfg)


@pytest.mark.parametrize("text", [VALUES[0], FORMS["plain"].format("os.system")])
def test_a_file_that_another_foreign_one_includes_is_held_to_the_same(text: str, tmp_path: Path) -> None:
    (tmp_path / "foreign" / "parts").mkdir(parents=True)
    (tmp_path / "foreign" / "parts" / "inner.yaml").write_text(EXPERIMENT + text)
    lines = refused(tmp_path, "defaults: [{/parts: inner}]\n")
    assert any("parts/inner.yaml" in line for line in lines)


@pytest.mark.parametrize("name", ["local/default", "hydra/job_logging/planted"])
def test_a_file_that_is_found_without_being_chosen_is_foreign(name: str, tmp_path: Path) -> None:
    text = "trainer: {plugins: {_target_: os.system}}\n"
    if name.startswith("local"):
        refused(tmp_path, text, is_chosen=False, name=name)
        return
    (tmp_path / "foreign").mkdir()
    folder = tmp_path / "foreign" / "hydra" / "job_logging"
    folder.mkdir(parents=True)
    (folder / "planted.yaml").write_text("handlers: {x: {class: subprocess.Popen, args: [ls]}}\n")
    with pytest.raises(ConfigError, match=r"planted\.yaml is not of this project"):
        compose([f"hydra.searchpath=[{tmp_path}/foreign]", "hydra/job_logging=planted"])


@pytest.mark.parametrize("way", ["../..{}/foreign/x", "link"])
def test_a_path_that_leaves_the_own_configs_leads_to_a_foreign_file(way: str, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x.yaml").write_text(EXPERIMENT + FORMS["plain"].format("os.system"))
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "x.yaml").symlink_to(tmp_path / "foreign" / "x.yaml")
    choice = way.format("/.." * 12 + str(tmp_path)) if way != "link" else "x"
    search = [f"hydra.searchpath=[{tmp_path}/configs]"] if way == "link" else []
    with pytest.raises(ConfigError, match=r"is not of this project"):
        compose([*search, f"experiment={choice}"])


# --- objects, whose kinds are known once they are imported


def _composed(folder: Path, text: str, *more: str) -> DictConfig:
    _write(folder, text)
    return compose([f"hydra.searchpath=[{folder}/foreign]", "experiment=x", *more], output_dir=folder / "run")


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("callbacks.x", "torch.nn.Linear"),
        ("callbacks.x", "lightning.pytorch.loggers.CSVLogger"),
        ("logger.x", "lightning.pytorch.callbacks.Timer"),
        ("logger.x", "lightning.pytorch.loggers.MLFlowLogger"),
        ("trainer.strategy", "lightning.pytorch.callbacks.Timer"),
        ("trainer.plugins", "lightning.pytorch.plugins.environments.LightningEnvironment"),
        ("trainer.plugins", "lightning.pytorch.plugins.io.TorchCheckpointIO"),
        ("model.optimizer", "torch.nn.Linear"),
        ("model.scheduler", "torch.optim.Adam"),
        ("model", "lightning.pytorch.LightningDataModule"),
        ("data", "src.models.classifier.Classifier"),
        ("model.net", "torch.nn.Module.load_state_dict"),
        ("model.net", "lightning.pytorch.callbacks.timer.Callback"),
        ("model.net", "src.models.classifier.nn.Linear"),
        ("model.net", "torch.nn.utils.clip_grad_norm_"),
        ("vars.any", "src.models.classifier.accuracy"),
        ("vars.any", "lightning.pytorch.Trainer.fit"),
    ],
)
def test_an_object_must_be_a_class_of_the_kind_of_its_place(place: str, target: str, tmp_path: Path) -> None:
    nested: Any = {"_target_": target}
    for part in reversed(place.split(".")):
        nested = {part: nested}
    cfg = _composed(tmp_path, yaml.safe_dump(nested))
    with pytest.raises(ConfigError) as caught:
        check_targets(cfg)
    assert any(line.startswith(f"{place}._target_: {target!r}") for line in caught.value.findings)


HARMLESS = """\
defaults: [override /model: mnist, override /trainer: cpu]
tags: {shared: true}
seed: 3
monitor: val/loss
model:
  net: {_target_: src.models.nets.dense.SimpleDenseNet, lin1_size: 8}
  optimizer: {_target_: torch.optim.AdamW, lr: 0.01}
  scheduler: {_target_: torch.optim.lr_scheduler.StepLR, step_size: 2}
  metric: {_target_: torchmetrics.text.Perplexity}
  metrics: [{_target_: torchmetrics.image.PeakSignalNoiseRatio}, {_target_: torchmetrics.F1Score, task: binary}]
callbacks:
  timer: {_target_: lightning.pytorch.callbacks.Timer, duration: {hours: 1}}
  patience: {_target_: lightning.pytorch.callbacks.EarlyStopping, _args_: [val/loss, 0.0, 3]}
  rates: {_target_: lightning.pytorch.callbacks.LearningRateMonitor, _args_: [step]}
  model_checkpoint: {dirpath: "${paths.output_dir}/checkpoints", filename: "epoch_{epoch:03d}-{val/acc:.2f}"}
logger: {csv: {_target_: lightning.pytorch.loggers.CSVLogger, save_dir: "${paths.output_dir}", name: csv}}
trainer: {strategy: {_target_: lightning.pytorch.strategies.SingleDeviceStrategy, device: cpu}}
data: {data_dir: "${paths.data_dir}/mnist", augment: {_target_: src.data.augment.RandomShift}}
vars:
  x: "${model.optimizer.lr}"
  activation: {_target_: torch.nn.functional.gelu, _partial_: true}
  settings: {pattern: 'weight$', price: '$5', nested: ["${vars.activation}", "${vars.x}"]}
  again: "${vars.settings}"
hydra:
  run: {dir: "${paths.log_dir}/${task_name}/shared/${now:%H-%M}"}
  job_logging: {handlers: {file: {class: logging.FileHandler, filename: "${hydra.runtime.output_dir}/x.log"}}}
"""


def test_a_shared_experiment_that_only_trains_needs_no_trust(tmp_path: Path) -> None:
    cfg = _composed(tmp_path, HARMLESS)
    check_targets(cfg)
    assert current_context().sources.foreign_parts["folders"] == [f"{tmp_path}/foreign"]
    assert set(current_context().sources.foreign_parts["targets"]) >= {"model.net._target_", "data.augment._target_"}


@pytest.mark.parametrize("text", [VALUES[0], "vars: {x: '${oc.create:{a: 1}}'}", "data: {data_dir: /etc}"])
def test_trust_makes_a_folder_one_of_the_project(text: str, tmp_path: Path) -> None:
    _composed(tmp_path, text, f"trust=[{tmp_path}/foreign]")
    assert current_context().sources.foreign_parts == {"folders": [], "targets": {}}
    with pytest.raises(ConfigError):
        _composed(tmp_path, text, f"trust=[{tmp_path}/foreig]")


def test_only_the_variables_of_trust_env_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", "7")
    text = "seed: ${oc.decode:${vars.x}}\nvars: {x: '${oc.env:SHARED}'}"
    assert _composed(tmp_path, "vars: {x: '${oc.env:SHARED}'}", "trust_env=[SHARED]").vars.x == "7"
    with pytest.raises(ConfigError, match=r"^seed=.* calls the resolver 'oc\.decode'"):
        _composed(tmp_path, text, "trust_env=[SHARED]")


@pytest.mark.parametrize("trust", ["trust=/x", "trust=[1]", "trust={a: 1}", "trust_env=x"])
def test_trust_is_a_list(trust: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{trust[:6]}.*: is not a list of "):
        _composed(tmp_path, "seed: 1", trust)


def test_the_command_line_replaces_a_foreign_value(tmp_path: Path) -> None:
    cfg = _composed(tmp_path, "model: {net: {_target_: torch.nn.Linear}}", "model.net._target_=torch.nn.Flatten")
    assert "model.net._target_" not in current_context().sources.foreign_parts["targets"]
    check_targets(cfg)


def test_foreign_text_reaches_no_resolver_of_the_own_configs(tmp_path: Path) -> None:
    OmegaConf.register_new_resolver("eval_for_a_test", lambda text: eval(str(text)), replace=True)  # noqa: S307 - as users do
    canary = tmp_path / "canary"
    own = "+vars.doubled='${eval_for_a_test:${vars.size}}'"
    assert _composed(tmp_path, "vars: {size: 2}", own).vars.doubled == 2
    with pytest.raises(ConfigError, match=r"^vars\.size=open.*would be passed to a resolver of vars\.doubled"):
        _composed(tmp_path, f"vars: {{size: \"open('{canary}', 'w')\"}}", own)
    assert not canary.exists()


def test_a_run_directory_of_another_user_is_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fulgurite.trust.run_directories import check_inherited, check_saved

    hostile = ["model.net._target_=os.system", "+hydra.job.env_set.A=b", "hydra/launcher=slurm", "trust=[/]"]
    harmless = ["experiment=example", "seed=3", "~callbacks.early_stopping"]
    cfg = OmegaConf.create({"model": {"_target_": "os.system"}, "data": None, "vars": {"x": "${eval:1}"}})
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("")
    check_inherited(tmp_path, hostile, [])
    assert check_saved(cfg, tmp_path) == {}
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    for override in hostile:
        with pytest.raises(ConfigError, match=rf"overrides\.yaml is not of this project.*trust=\[{tmp_path}\]"):
            check_inherited(tmp_path, [override], [])
    with pytest.raises(ConfigError) as caught:
        check_saved(cfg, tmp_path)
    assert {line.partition("=")[0] for line in caught.value.findings} == {"model._target_", "vars.x"}
    check_inherited(tmp_path, hostile, [f"trust=[{tmp_path}]"])
    check_inherited(tmp_path, harmless, [])
    assert current_context().inherited.keys() >= set(harmless)
    compose(harmless[1:2])
    assert current_context().sources.foreign_parts["folders"] == [str(tmp_path)]


# --- the commands


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["-m", "seed=1,2"], ["-m", "seed=1,2", "hydra/launcher=local"]])
def test_the_first_line_of_a_run_names_the_foreign_folders(command: list[str], tmp_path: Path) -> None:
    _write(tmp_path, "tags: {shared: true}\nmodel: {optimizer: {_target_: torch.optim.SGD, lr: 0.1}}")
    foreign = (f"--config-dir={tmp_path}/foreign", "experiment=x", "+trainer.fast_dev_run=true", "test=false")
    done = run_cli("train", *command, *foreign, logs=tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    logs = sorted((tmp_path / "logs").rglob("train.log"))
    assert len(logs) == (2 if command else 1)
    for log in logs:
        first = " ".join(log.read_text().splitlines()[:2])
        assert f"reads configs that are not of this project: {tmp_path}/foreign" in first


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["-m", "seed=1,2"], ["-m", "seed=1,2", "hydra/launcher=local"]])
@pytest.mark.parametrize(
    "text",
    [
        "model: {net: {_target_: subprocess.run, args: [touch, CANARY]}}",
        "callbacks: {x: {_target_: torch.utils.collect_env.run, command: touch CANARY}}",
        "trainer: {plugins: {_target_: lightning.pytorch.plugins.io.TorchCheckpointIO}}",
    ],
)
def test_the_commands_refuse_in_one_line(command: list[str], text: str, tmp_path: Path) -> None:
    _write(tmp_path, text.replace("CANARY", f"{tmp_path}/canary"))
    done = run_cli("train", *command, f"--config-dir={tmp_path}/foreign", "experiment=x", logs=tmp_path / "logs")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/foreign/experiment/x.yaml" in done.stderr
    assert not (tmp_path / "canary").exists()


# starts that would have several processes, and a handful of attacks of each kind
STARTS = {
    "ranks": ["trainer=ddp_sim"],
    "a search": ["-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=2", "seed=range(1,9)", "monitor=val/loss"],
    "the shipped search": ["-m", "hparams_search=mnist_optuna", "hydra.sweeper.n_trials=2"],
}
ATTACKS = {
    "target": "model: {net: {_target_: subprocess.run, args: [touch, CANARY]}}",
    "nested": "callbacks: {x: {_target_: src.callbacks.X, inner: [{_target_: os.system, _args_: [touch CANARY]}]}}",
    "referred": "vars: {name: subprocess.Popen}\nmodel: {net: {_target_: '${vars.name}', _partial_: true}}",
    "environment": "hydra: {job: {env_set: {LD_PRELOAD: CANARY}}}",
    "callback of Hydra": "hydra: {callbacks: {x: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}}",
    "folder": "hydra: {run: {dir: CANARY}, sweep: {dir: CANARY}}",
    "variable": "vars: {x: '${oc.env:HOME}'}",
}


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_neither_a_rank_nor_a_trial_starts_with_a_foreign_config(
    attack: str, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, begun = tmp_path / "canary", tmp_path / "begun"
    _write(tmp_path, ATTACKS[attack].replace("CANARY", str(canary)))
    (tmp_path / "sitecustomize.py").write_text(f"with open({str(begun)!r}, 'a') as file: file.write('x')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    given = (*STARTS[start], f"--config-dir={tmp_path}/foreign", "experiment=x")
    done = run_cli("train", *given, logs=tmp_path / "logs", cold=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if f"{tmp_path}/foreign/experiment/x.yaml" in line]
    assert len(lines) == (2 if attack == "folder" else 1), done.stderr
    assert not canary.exists()
    assert begun.read_text() == "x"  # the interpreter of the command, and none beside it
    assert [path for path in (tmp_path / "logs").rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_sweep_trusts_what_its_command_trusts(launcher: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    _write(tmp_path, f"data: {{local_dirs: [{tmp_path}/elsewhere]}}")
    command = ("-m", "seed=1,2", f"hydra/launcher={launcher}", f"--config-dir={tmp_path}/foreign", "experiment=x")
    quick = ("+trainer.fast_dev_run=true", "test=false")
    done = run_cli("train", *command, *quick, f"trust=[{tmp_path}/foreign]", logs=tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    assert "not of this project" not in done.stderr


def _write(folder: Path, text: str) -> None:
    file = folder / "foreign" / "experiment" / "x.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(EXPERIMENT + text)
