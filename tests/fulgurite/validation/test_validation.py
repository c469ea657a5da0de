"""Every rule of a config has its message; nothing heavy is imported to find out, and nothing secret is shown."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException, InstantiationException, SearchPathException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError

from fulgurite.config.tags import replace_tags, require_tags, tag_names
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.validation import targets
from fulgurite.validation.composition import explain_composition
from fulgurite.validation.findings import Finding
from fulgurite.validation.validate import validate
from tests.support.compose import compose_raw, findings, with_file
from tests.support.project import ROOT

# (overrides, what the one line says)
RULES = [
    # types
    (["trainer.max_epochs=1.5"], "Trainer wants a whole number or null"),
    (["trainer.max_epochs='3'"], "Trainer wants a whole number or null"),
    (["trainer.min_epochs=true"], "Trainer wants a whole number or null"),
    (["trainer.deterministic=yess"], "Trainer wants true or false, 'warn' or null"),
    (["+trainer.precision=16-mixd"], "not a value of Trainer. Did you mean '16-mixed'"),
    (["model.optimizer.lr=abc"], "Adam wants a number"),
    (["+model.optimizer.betas=[0.9]"], "Adam wants a list of 2"),
    (["model.scheduler.mode=mn"], "ReduceLROnPlateau wants 'min' or 'max'. Did you mean 'min'"),
    (["model.scheduler.factor=2"], "model.scheduler.factor=2: must be below 1"),
    (["callbacks.early_stopping.mode=minimize"], "EarlyStopping wants 'min' or 'max'"),
    (["callbacks.model_checkpoint.mode=lower"], "ModelCheckpoint wants 'min' or 'max'"),
    (["trainer.devices=0"], "must be 1 or more, a list of devices, or auto"),
    (["trainer.devices=-3"], "trainer.devices=-3: must be 1 or more, a list of devices, or auto"),
    (["trainer.devices=[]"], "must be 1 or more, a list of devices, or auto"),
    (["trainer.devices=''"], "must be 1 or more, a list of devices, or auto"),
    (["model.scheduler_interval=epochs"], "Classifier wants 'epoch' or 'step'. Did you mean 'epoch'?"),
    (["model.scheduler_monitor=3"], "Classifier wants text. Put it in quotes"),
    (["callbacks.early_stopping.patience=null"], "EarlyStopping wants a whole number"),
    (["data.pin_memory=1"], "MNISTDataModule wants true or false"),
    (["model.optimizer=3"], "Classifier wants an object (Callable). Set its _target_"),
    (["model.net=dense"], "Classifier wants an object (Module). Set its _target_"),
    (["trainer.max_epochs=${oc.env:FULGURITE_NUMBER}"], "is text. Write ${oc.decode:${oc.env:FULGURITE_NUMBER}}"),
    (["model.optimizer.lr='None'"], "and None is text in YAML. Write null"),
    (["trainer._target_=pytorch_lightning.Trainer"], "Use lightning.pytorch.Trainer"),
    (["train=1"], "train=1: must be true or false"),
    (["seed=abc"], "seed=abc: must be a whole number or null"),
    (["seed=-1"], "seed=-1: must be between 0 and 4294967295"),
    (["extras.print_config=maybe"], "must be true or false"),
    (["extras.allowed_targets=timm"], "must be a list (str each)"),
    (["paths.data_dir=null"], "must be text"),
    # numbers
    (["model.optimizer.lr=-0.1"], "model.optimizer.lr=-0.1: must be 0 or more"),
    (["model.optimizer.lr=nan"], "not a number. Give a number"),
    (["data.batch_size=0"], "must be 1 or more"),
    (["data.num_workers=-1"], "must be 0 or more"),
    (["trainer.max_epochs=-2"], "must be -1 (no limit) or more"),
    (["callbacks.early_stopping.patience=-1"], "must be 0 or more"),
    (["trainer.min_epochs=20", "trainer.max_epochs=10"], "must not be more than trainer.max_epochs=10"),
    (["trainer.enable_progress_bar=false"], "excludes callbacks.progress_bar. Add '~callbacks.progress_bar', or leave"),
    (["+trainer.enable_checkpointing=false"], "excludes callbacks.model_checkpoint, callbacks.last_checkpoint. Add "),
    (["+trainer.min_steps=9", "+trainer.max_steps=5"], "must not be more than trainer.max_steps=5"),
    # what is missing
    (["model.net=???"], "model.net=???: missing. Add model.net=<value>"),
    (["data.name=${dat.name}"], "${dat.name} refers to a key that does not exist"),
    (["data.name=${oc.evn:X}"], "${oc.evn:...} names no resolver. Did you mean 'oc.env'?"),
    (["paths.log_dir=${oc.env:FULGURITE_NOT_SET}"], "environment variable FULGURITE_NOT_SET is not set"),
    (["model.optimizer._partial_=false"], "Adam needs 'params'. Add _partial_: true"),
    (["~model.num_classes"], "model: Classifier needs 'num_classes'. Add model.num_classes"),
    (["~trainer"], "trainer: missing. Choose one with trainer=<a file of configs/trainer>"),
    (["~model._target_"], "model: has no _target_. Choose one with model=<a file of configs/model>"),
    (["ckpt_path=nowhere.ckpt"], "ckpt_path=nowhere.ckpt: no such file"),
    (["resume.apply=[model.optimizer.lr]"], "needs a run, whose config shows what changed"),
    (["resume.reset=[optimizer]"], "there is no state to reset. Add resume=<run directory> or ckpt_path=<file>"),
    (["ckpt_path=http://example.org/x.ckpt"], "must be a file or an https URL"),
    (["ckpt_sha256=abc"], "must be 64 hex digits"),
    (["train=false"], "train=false tests a checkpoint and none is given. Add ckpt_path=<file or https URL>"),
    # tags, callbacks, loggers
    (["~tags", "+tags=[1,a]"], "tags[0]=1: a tag is text. Put it in quotes"),
    (["tags.dev=maybe"], "a tag is switched on with true and off with false"),
    (["+callbacks.mine=3"], "callbacks.mine=3: has no _target_, so it is not a callback"),
    (["+logger.csvv.save_dir=x"], "logger.csvv: has no _target_, so it is not a logger. Did you mean 'csv'?"),
    (["+mine=3"], "+mine=3: nothing reads this key. Remove it, or put values of your own below vars: vars.mine"),
    (["logger=neptune"], "configs/logger/neptune.yaml:2: logger.neptune: Neptune has been sunset"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), RULES)
def test_each_rule_has_its_message(overrides: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULGURITE_NUMBER", "3")
    (line,) = findings(*overrides)
    assert said in f"{line}"
    assert "\n" not in line


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.max_epochs=-1", "trainer.min_epochs=20"],
        ["trainer.enable_progress_bar=false", "~callbacks.progress_bar"],
        ["trainer.max_epochs=null", "+trainer.max_time=00:12:00:00"],
        ["+trainer.val_check_interval=0.25", "+trainer.limit_train_batches=0.2", "+trainer.gradient_clip_val=0.5"],
        ["+trainer.accumulate_grad_batches=10", "+trainer.detect_anomaly=true", "+trainer.precision=16"],
        ["model.scheduler=null", "seed=0", "callbacks=none", "~model.compile"],
        ["model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=1", "+model.optimizer.momentum=0.9"],
        ["ckpt_path=https://127.0.0.1/x.ckpt", f"ckpt_sha256={'0' * 64}"],
        ["+mine=7", "data.val_size=${mine}"],
        ["experiment=null", "debug=null", "logger=null", "seed=3"],
        ["+vars.width=7", "+vars.names=[a,b]"],
        ["+logger.mine.save_dir=x", "+callbacks.rich_progress_bar.refresh_rate=1"],
        ["+paths.shared=/x", "paths.data_dir=${.shared}/data"],
        ["model.net._target_=some.compiled.Net", "extras.allowed_targets=[some]"][1:],
        ["callbacks.early_stopping=null", "+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor"],
        ["+tags.ablation=true", "tags.dev=false"],
        replace_tags(['tags=["mnist","experiment_X"]']),
        ["+model.optimizer.betas=[0.8,0.9]", "trainer.devices=[0,1]", "+trainer.strategy=ddp"],
    ],
)
def test_valid_configs_pass(overrides: list[str]) -> None:
    assert findings(*overrides) == []


def test_eval_without_a_checkpoint_says_what_to_add() -> None:
    assert findings(config_name="eval") == [
        "configs/eval.yaml:9: ckpt_path: missing, and eval scores a checkpoint. Add ckpt_path=<file or https URL>"
    ]
    assert findings(f"ckpt_path={ROOT / 'pyproject.toml'}", config_name="eval") == []


def test_a_missing_checkpoint_says_where_the_path_ends(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    (line,) = findings(f"ckpt_path={tmp_path}/bst.ckpt")
    assert line.endswith(f"no such file; {tmp_path} has best.ckpt")
    (line,) = findings(f"ckpt_path={tmp_path}/runs/1/best.ckpt")
    assert line.endswith(f"no such file. The folder {tmp_path} has no 'runs'")


def test_validate_raises_all_findings_as_one_error_with_exit_code_2() -> None:
    with pytest.raises(ConfigError, match=r"seed=-1: must be between") as caught:
        validate(compose_raw("seed=-1", "data.batch_size=0", "trainer.max_epochs=1.5"))
    assert len(caught.value.findings) == 3
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("logger", "module", "extra"),
    [
        ("aim", "aim", "aim"),
        ("comet", "comet_ml", "comet"),
        ("mlflow", "mlflow", "mlflow"),
        ("tensorboard", "tensorboard", "tensorboard"),
        ("wandb", "wandb", "wandb"),
    ],
)
def test_a_tracker_that_is_not_installed_names_its_extra(
    logger: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "is_installed", lambda package: False)
    (line,) = findings(f"logger={logger}")
    assert f'needs the package {module}, which is not installed; pip install -e ".[{extra}]"' in line
    assert line.startswith(f"configs/logger/{logger}.yaml:")


def test_a_logger_by_the_module_that_defines_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "is_installed", lambda package: False)
    (line,) = findings("+logger.w._target_=lightning.pytorch.loggers.wandb.WandbLogger")
    assert 'WandbLogger needs the package wandb, which is not installed; pip install -e ".[wandb]"' in line


def test_a_folder_named_like_a_tracker_is_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fulgurite_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not targets.is_installed("fulgurite_tracker")
    assert targets.is_installed("yaml")


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FULGURITE_CANARY", "canary-7431")
    search = with_file(tmp_path, "experiment/leak.yaml", "# @package _global_\nloger: {api_key: canary-7431}\n")
    typed = ["+api_token=canary-7431", "+wandb_ky=${oc.env:FULGURITE_CANARY}", "+trainer.api_key=canary-7431"]
    lines = findings(*search, "experiment=leak", *typed, "data.name=${oc.env:FULGURITE_CANARY}x")
    assert len(lines) >= 4
    assert "canary" not in "\n".join(lines).replace("FULGURITE_CANARY", "")


def test_a_finding_is_place_key_value_rule() -> None:
    assert Finding("a.b", "rule", 3).line == "a.b=3: rule"
    assert Finding("a.b", "rule", None, "x.yaml:2").line == "x.yaml:2: a.b=null: rule"
    assert Finding("a.b", "rule", 3, "command line: +a.b=3").line == "command line: +a.b=3: rule"
    assert Finding("a.b", "rule", 3, "command line: +a={b: 3}").line == "command line: +a={b: 3}: a.b=3: rule"
    assert Finding("a.password", "rule", "x", "command line: a.password=x").line == "command line: a.password=***: rule"


def test_errors_that_are_not_about_composition_stay_what_they_are() -> None:
    assert explain_composition(RuntimeError("out of memory"), []) is None
    assert explain_composition(InstantiationException("x"), []) is None
    assert explain_composition(ValueError("x"), [], "train") is None
    explained = explain_composition(ConfigCompositionException("Hydra says so\nand more"), [], "train")
    assert explained is not None
    assert explained.findings == ["Hydra says so"]
    explained = explain_composition(SearchPathException("no such folder"), ["sed=1"], "train")
    assert explained is not None
    assert explained.findings == ["no such folder"]
    explained = explain_composition(InterpolationKeyError("Interpolation key 'x' not found"), [], "train")
    assert explained is not None
    assert explained.findings == ["Interpolation key 'x' not found"]


def test_tags_are_a_list_or_a_dictionary_of_switches() -> None:
    assert tag_names(OmegaConf.create({"tags": {"a": True, "b": False, "c": True}})) == ["a", "c"]
    assert tag_names(OmegaConf.create({"tags": ["x", "y"]})) == ["x", "y"]
    assert tag_names(OmegaConf.create({"tags": None})) == []


class _Terminal:
    def __init__(self, is_terminal: bool) -> None:
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def _untagged(**extras: Any) -> Any:
    return OmegaConf.create({"tags": {"dev": False}, "extras": {"enforce_tags": True, **extras}})


def test_tags_are_refused_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(False))
    with pytest.raises(UserError, match=r"^tags: empty, but extras\.enforce_tags is true.*without a terminal\. Set"):
        require_tags(_untagged())
    require_tags(_untagged(enforce_tags=False))


def test_tags_are_asked_for_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(True))
    monkeypatch.setattr("rich.prompt.Prompt.ask", lambda *args, **kwargs: "mnist, first try,")
    cfg = _untagged()
    require_tags(cfg)
    assert tag_names(cfg) == ["mnist", "first try"]


# Prints the number of Python calls of the checks, the number of problems, and whether torch and lightning are imported.
COST = """
    import sys
    sys.path.insert(0, {root!r})
    from fulgurite.core.project import prepare_environment
    prepare_environment()
    from hydra import compose, initialize_config_dir
    from fulgurite.config.yaml_limits import guard_configs
    from fulgurite.validation.validate import find_problems
    from tests.support.cost import count_calls
    guard_configs()
    with initialize_config_dir(config_dir={root!r} + "/configs", version_base="1.3"):
        cfg = compose("train", overrides={overrides!r}, return_hydra_config=True)
        problems = []
        calls = count_calls(lambda: problems.extend(find_problems(cfg)))
        print(calls, len(problems), "torch" in sys.modules, "lightning" in sys.modules)
"""


def _cost(overrides: list[str]) -> tuple[int, int, bool, bool]:
    code = textwrap.dedent(COST).format(root=str(ROOT), overrides=overrides)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    calls, problems, torch, lightning = done.stdout.split()
    return int(calls), int(problems), torch == "True", lightning == "True"


def test_the_checks_import_nothing_heavy_and_call_few_functions() -> None:
    calls, problems, torch, lightning = _cost(["experiment=example"])
    assert (problems, torch, lightning) == (0, False, False)
    assert calls < 100_000
    calls, problems, torch, lightning = _cost(["seed=-1", "+trainer.max_epoch=3", "+callbacks.early_stoping.y=1"])
    assert (problems, torch, lightning) == (3, False, False)
    assert calls < 1_000_000


@pytest.mark.parametrize("typo", ["trainer.max_epoch=3", "experiment=exmple", "+trainer.max_epoch=3"])
def test_a_refused_typo_is_one_line_exit_code_2_and_imports_nothing_heavy(typo: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "src" / "train.py"), typo, f"paths.log_dir={tmp_path}"]
    done = subprocess.run(
        [*command, "extras.print_config=false"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "Did you mean" in line]
    assert len(errors) == 1
    assert f"command line: {typo}: " in errors[0]
    assert "Traceback" not in done.stderr
    assert not re.search(r"\| +(torch|lightning)$", done.stderr, re.MULTILINE)
