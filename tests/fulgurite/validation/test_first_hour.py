"""Mistakes of the first hour with one's own code: each is said at once, in one line, with its place and its remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from fulgurite.config.compose import compose
from fulgurite.config.left_out import take_messages
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.engine.app import EntryPoint
from fulgurite.engine.outcome import print_error
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.validation.validate import validate
from tests.conftest import ComposeSmall
from tests.support.compose import compose_raw, findings, with_file
from tests.support.own_code import forget_sources

HEADER = "# @package _global_\n"
LACKS_PACKAGE = (
    "without its first line '# @package _global_' the keys of the file stand below 'experiment'. Put that line first"
)
# text of an experiment file, line that is named, what is said
FILES = {
    "no package, with a defaults list": (
        "defaults:\n  - override /data: mnist\nseed: 3\n",
        1,
        LACKS_PACKAGE,
    ),
    "a comment above the package, with a defaults list": (
        f"# Spirals.\n{HEADER}defaults:\n  - override /data: mnist\nseed: 3\n",
        1,
        LACKS_PACKAGE,
    ),
    "a comment above the package": (
        f"# Spirals.\n{HEADER}model:\n  optimizer: {{lr: 0.1}}\n",
        1,
        LACKS_PACKAGE,
    ),
    "override without a slash, and a comment above the package": (
        f"# Spirals.\n{HEADER}defaults:\n  - override data: mnist\n",
        4,
        "Write '- override /data: mnist', and '# @package _global_' as the first line",
    ),
    "no package": (
        "model:\n  optimizer: {lr: 0.1}\n",
        1,
        f"experiment: {LACKS_PACKAGE}",
    ),
    "override without a slash": (
        f"{HEADER}defaults:\n  - override data: mnist\n",
        3,
        "a group of another folder needs a slash. Write '- override /data: mnist'",
    ),
    "override without a slash, and no package": (
        "defaults:\n  - override model: mnist\n",
        2,
        "Write '- override /model: mnist', and '# @package _global_' as the first line",
    ),
    "no override": (
        f"{HEADER}defaults:\n  - /data: mnist\n  - _self_\n",
        3,
        "/data has a value already. Write '- override /data: mnist'",
    ),
    "target without src": (
        f"{HEADER}model:\n  net:\n    _target_: models.nets.dense.SimpleDenseNet\n",
        4,
        "a class of the project is named from its root. Write src.models.nets.dense.SimpleDenseNet",
    ),
    "target without src, below a folder of the root": (
        f"{HEADER}data:\n  _target_: data.mnist.MNISTDataModule\n",
        3,
        "Write src.data.mnist.MNISTDataModule",
    ),
    "target without src and the folder below it": (
        f"{HEADER}model:\n  net:\n    _target_: nets.dense.SimpleDenseNet\n",
        4,
        "a class of the project is named from its root. Write src.models.nets.dense.SimpleDenseNet",
    ),
    "target in a package like one of Python itself, which configs may not name": (
        f"{HEADER}model:\n  net:\n    _target_: components.mlp.TinyNet\n",
        4,
        "there is no package 'components'. Install it or correct the name",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_an_experiment_is_named_with_its_line_and_its_remedy(name: str, tmp_path: Path) -> None:
    text, number, said = FILES[name]
    (line,) = findings(*with_file(tmp_path, "experiment/ours.yaml", text), "experiment=ours")
    assert line.startswith(f"{tmp_path}/experiment/ours.yaml:{number}: ")
    assert said in line


@pytest.mark.parametrize("entry", ["override /data: mnist", "override /logger: csv"])
def test_entries_that_are_right_compose(entry: str, tmp_path: Path) -> None:
    search = with_file(tmp_path, "experiment/ours.yaml", f"{HEADER}defaults:\n  - {entry}\n")
    assert findings(*search, "experiment=ours") == []


def test_an_override_written_as_an_option_is_named() -> None:
    # argparse reads --experiment as its own --experimental-rerun
    said = r"^-+experiment=x: .* dashes: experiment=x\n--seed: there is no such option\. .*: seed=<value>$"
    for argument in ("--experiment=x", "-experiment=x"):
        with pytest.raises(UserError, match=said):
            expand_shorthands([argument, "--seed"], "train")
    with pytest.raises(UserError, match=r"^--multirn: there is no such option\. Write --multirun$"):
        expand_shorthands(["--multirn", "seed=1,2"], "train")
    shown = ["-cn=train", "--config-dir=a", "--cfg", "job", "--help", "--config-n", "b"]
    for right in (shown, ["--multirun", "--help", "-m"]):
        assert expand_shorthands(right, "train") == right


@pytest.mark.parametrize(
    "words", ["-m seed=1,2 --cfg job", "seed=1,2 --cfg=job --multirun", "-m --info", "-c job --run"]
)
def test_options_that_exclude_each_other_are_named(words: str) -> None:
    said = r"^--cfg(=job)?: shows .* Remove (-m|--multirun), or .* --dry-run instead of --cfg(=job)?$"
    if "seed" not in words:
        said = r"^--(info|run): cannot be combined with -[mc]\. Remove one of them$"
    with pytest.raises(UserError, match=said):
        expand_shorthands(words.split(), "train")


OPTIONS = {
    "--cfg=jbo": "--cfg=jbo: there is no such value. Did you mean 'job'?",
    "-c xyz seed=3": "--cfg=xyz: there is no such value. It takes job, hydra, all",
    "seed=3 --cfg": "--cfg: has no value. It takes job, hydra, all",
    "--info=plugin": "--info=plugin: there is no such value. Did you mean 'plugins'?",
    "-p": "--package: has no value. Write --package=<value>",
    "--multirun=3": "--multirun: takes no value. Remove 3",
    "--config b": (
        "--config: is the start of several options. Write one of --config-path, --config-name, --config-dir"
    ),
    "-x seed=3": "-x: there is no such option. Values are set without dashes: key=value",
}


@pytest.mark.parametrize("typed", OPTIONS)
def test_an_option_that_hydra_rejects_is_one_line(typed: str) -> None:
    with pytest.raises(UserError) as caught:
        expand_shorthands(typed.split(), "train")
    assert str(caught.value) == OPTIONS[typed]


def test_a_block_without_target_is_no_error_beside_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["trainer.max_epoch=3", "+logger.wandb.project=x"]
    take_messages()
    (line,) = findings(*overrides)
    assert line.startswith("command line: trainer.max_epoch=3: ")
    print_error(UserError("wrong"))
    assert capsys.readouterr().err == (
        "error: wrong\ninfo: logger.wandb: has no _target_ and is left out. To use it, choose it with logger=wandb\n"
    )


def test_what_composing_left_out_follows_the_error_that_ends_a_run(
    small: ComposeSmall, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: DictConfig) -> dict[str, float]:
        raise UserError("wrong")

    caplog.set_level("INFO")
    cfg = small()
    current_context().left_out.append("logger.wandb: has no _target_ and is left out")
    with pytest.raises(SystemExit):
        EntryPoint(refused, "train").run_job(cfg)
    assert caplog.messages[-2:] == ["wrong", "logger.wandb: has no _target_ and is left out"]


@pytest.mark.parametrize("typed", [["seed=", "3"], ["seed", "=", "3"], ["seed", "=3"]])
def test_spaces_around_an_equals_sign_are_named_once(typed: list[str]) -> None:
    assert findings("test=false", *typed) == [f"command line: {' '.join(typed)}: a space stands around =. Write seed=3"]


def test_resume_auto_says_that_it_starts_a_new_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fulgurite.resume.plan import plan_resume

    plan_resume(compose_raw("resume.run=auto", f"paths.log_dir={tmp_path}"))
    assert capsys.readouterr().err == "resume=auto: no unfinished run has this config. This starts a new run\n"
    plan_resume(compose_raw(f"paths.log_dir={tmp_path}"))
    assert capsys.readouterr().err == ""


# key and value of an override, what is said
VALUES = {
    "accelerator": ("trainer.accelerator=gpuu", "there is no such accelerator. Did you mean 'gpu'?"),
    "function of the standard library": (
        "+callbacks.mine={_target_: os.system, command: ls}",
        "callbacks.mine._target_=os.system: is posix.system, which configs may not call",
    ),
    "function that loads a pickle": (
        "+data.augment={_target_: torch.hub.load, repo_or_dir: x, model: y}",
        "data.augment._target_=torch.hub.load: is torch.hub.load, which configs may not call",
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_needs_no_torch_is_refused_before_it_is_imported(name: str) -> None:
    override, said = VALUES[name]
    (line,) = findings(override)
    assert said in line


@pytest.mark.parametrize("target", ["antigravity.geohash", "antigravity.webbrowser.open", "antigravity.nothing"])
def test_a_module_of_python_is_judged_without_running_it(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda *_: None)  # which an import of this module calls
    findings(f"+callbacks.mine={{_target_: {target}}}")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.accelerator=npu"],  # a package may register it
        ["+callbacks.mine={_target_: shutil.copy, src: x, dst: y}", "extras.allowed_targets=[shutil]"],
        ["+model.net.extra={_target_: collections.OrderedDict}", "model.net._target_=torch.nn.Identity"],
    ],
)
def test_accelerators_and_targets_that_may_be_right_pass(overrides: list[str]) -> None:
    assert findings(*overrides) == []


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a module of the user's own."""
    monkeypatch.syspath_prepend(tmp_path)
    forget_sources()
    yield tmp_path / "owncode_first_hour.py"
    forget_sources()


def test_a_syntax_error_is_named_with_its_file_and_line(own_file: Path) -> None:
    own_file.write_text("class Net:\n    def forward(self, x)\n        return x\n")
    (line,) = findings("model.net._target_=owncode_first_hour.Net")
    assert f"{own_file}:2: SyntaxError: expected ':'. Correct the line" in line


# text of the file, line and reason that are named
BROKEN = {
    "package": ("import os\nimport nothere.part\n", 2, "ModuleNotFoundError: No module named 'nothere'. Install it"),
    "own module": ("from owncode_helper import b\n", 1, "ImportError: owncode_helper has no 'b'. Correct the line"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_import_that_fails_is_named_with_its_file_and_line(name: str, own_file: Path) -> None:
    text, number, said = BROKEN[name]
    own_file.with_name("owncode_helper.py").write_text("a = 1\n")
    own_file.write_text(f"{text}class Net: ...\n")
    (line,) = findings("model.net._target_=owncode_first_hour.Net")
    assert f"{own_file}:{number}: " in line
    assert said in line
    own_file.with_name("owncode_user.py").write_text("import owncode_first_hour\nclass Net: ...\n")
    (line,) = findings("model.net._target_=owncode_user.Net")
    assert f"{own_file}:{number}: " in line, "the file that the module imports"


def test_imports_that_may_fail_pass(own_file: Path) -> None:
    own_file.write_text(
        "import os.path\nfrom pathlib import Path\nfrom collections import abc\nimport torch.nn.functional as F\n"
        "try:\n    import nothere\nexcept ImportError:\n    nothere = None\nclass Net: ...\n"
    )
    assert findings("model.net._target_=owncode_first_hour.Net") == []


def test_an_optimizer_without_target_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, own_file: Path) -> None:
    text = "_target_: {}\nnet: {{_target_: torch.nn.Identity}}\nnum_classes: 10\noptimizer: {{lr: 0.1}}\n"
    search = with_file(tmp_path, "model/mine.yaml", text.format("src.models.classifier.Classifier"))
    (line,) = findings(*search, "model=mine")
    assert (
        "mine.yaml:4: model.optimizer: Classifier wants an object (Callable), and this block has no _target_." in line
    )
    # a class of the user's own may read the block itself
    own_file.write_text(
        "import torch\nclass Lit:\n"
        "    def __init__(self, net, num_classes, optimizer: torch.optim.Optimizer, scheduler: dict = None): ...\n"
    )
    with_file(tmp_path, "model/mine.yaml", text.format("owncode_first_hour.Lit"))
    with caplog.at_level("WARNING"):
        validate(compose([*search, "model=mine"], output_dir=tmp_path))
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "model.optimizer: Lit wants an object (Optimizer), and this block has no _target_. Add one" in warning


def test_findings_of_all_stages_without_torch_come_together(tmp_path: Path) -> None:
    search = with_file(tmp_path, "experiment/ours.yaml", f"{HEADER}sed: 3\nmodel: {{net: {{_target_: models.a.B}}}}\n")
    lines = findings(*search, "experiment=ours", "trainer.max_epoch=3", "data.batch_size=0", "trainer.accelerator=gpuu")
    said = ("max_epoch=3: there is no such key", "sed=3: nothing reads", "no package 'models'", "gpuu", "batch_size=0")
    assert len(lines) == 5, lines
    assert all(any(part in line for line in lines) for part in said), lines


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model._target_=torch.nn.Identity"], "is not a LightningModule"),
        (["trainer.accelerator=tpu"], "torch_xla finds no TPU here"),
    ],
)
def test_what_needs_torch_is_refused_before_the_config_is_printed(
    overrides: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fulgurite.engine import build

    printed: list[object] = []
    monkeypatch.setattr(build, "log_start", lambda *arguments: printed.append(arguments))
    with pytest.raises(UserError, match=said):
        build.build(compose(overrides, output_dir=tmp_path))
    assert printed == []
