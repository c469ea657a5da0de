"""Config files that would fill the memory, cannot be read, or would have Hydra run what they please."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fulgurite.config.hydra_targets import check_hydra_part
from fulgurite.config.target_policy import check_targets
from fulgurite.config.yaml_limits import check_config_file
from fulgurite.core.errors import ConfigError, UserError
from tests.conftest import ComposeSmall
from tests.support.cli import run_cli
from tests.support.compose import compose_raw
from tests.support.cost import count_calls
from tests.support.project import ROOT

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
SPOILT: dict[str, tuple[bytes, str]] = {
    "bomb": (BOMB.encode(), "its aliases expand to more than 10^9 values, a config may have 10,000. Use"),
    "merged": (b"a: &a {x: 1}\nb: {<<: *a}\n" + b"c: [" + b"*a, " * 6000 + b"1]\n", "expand to 18,014 values"),
    "itself": (b"seed: &a [1, *a]\n", "the alias *a is inside its own anchor. Write the value instead"),
    "latin": (
        "seed: 1\ntask_name: café\n".encode("latin-1"),
        ":2: byte 22 (0xe9) is not UTF-8. Save the file as UTF-8",
    ),
    "large": (b"seed: [" + b"1, " * 1_700_000 + b"1]\n", "has 5,100,010 bytes, a config may have 200,000. Move data"),
    "deep": (b"a: &a 1\nb: *a\nc: " + b"[" * 5000 + b"]" * 5000, "is nested too deeply. Use fewer levels"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_is_refused_in_one_line_before_it_is_parsed(name: str, tmp_path: Path) -> None:
    content, said = SPOILT[name]
    file = tmp_path / "spoilt.yaml"
    file.write_bytes(content)
    refused: list[UserError] = []

    def check() -> None:
        with pytest.raises(UserError) as caught:
            check_config_file(file)
        refused.append(caught.value)

    assert count_calls(check) < 100_000
    assert str(refused[0]).startswith(str(file))
    assert said in str(refused[0])
    assert "\n" not in str(refused[0])


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, z: 2}\n",
        "a: '&b *c'\n",
        "a: [1\n",
        "b: &b 1\na: *nobody\n",
        "",
        "é: 1 # *&\n",
    ],
)
def test_aliases_in_moderation_and_what_others_refuse_pass(text: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text, encoding="utf-8")
    check_config_file(file)
    check_config_file(tmp_path / "absent.yaml")


def test_counting_sees_what_omegaconf_would_make(tmp_path: Path) -> None:
    """The count is the number of nodes after every alias is replaced."""
    text = "a: &a [1, 2, 3]\nb: &b [*a, *a]\nc: [*b, *b]\n"

    def count(node: object) -> int:
        if isinstance(node, dict):
            return 1 + sum(1 + count(child) for child in node.values())
        return 1 + sum(count(child) for child in node) if isinstance(node, list) else 1

    from fulgurite.sources.yaml_bounds import count_nodes

    assert count_nodes(text) == count(yaml.safe_load(text)) == 36


def test_every_config_of_the_project_passes() -> None:
    for file in (ROOT / "configs").rglob("*.yaml"):
        check_config_file(file)


@pytest.mark.parametrize("name", ["bomb", pytest.param("latin", marks=pytest.mark.slow), "large", "itself"])
def test_the_command_refuses_it_in_one_line_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "spoilt.yaml").write_bytes(b"# @package _global_\n" + SPOILT[name][0])
    done = run_cli("train", f"--config-dir={tmp_path}/mine", "experiment=spoilt", logs=tmp_path / "logs", timeout=60)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/mine/experiment/spoilt.yaml")
    assert not (tmp_path / "logs").exists()


# --- what a config may have called

HOSTILE = [
    "os.system",
    "posix.system",
    "logging.os.system",
    "subprocess.run",
    "builtins.eval",
    "builtins.open",
    "shutil.copy",
    "torch.hub.load",
    "torch.load",
    "torch.utils.cpp_extension.load_inline",
    "lightning.pytorch.loggers.csv_logs.os.system",
    "hydra.utils.instantiate",
    "fulgurite.core.files.write_atomic",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_what_runs_a_pasted_snippet_is_not_called_whatever_the_name(target: str, small: ComposeSmall) -> None:
    cfg = small()
    cfg.model.net = {"_target_": target}
    with pytest.raises(ConfigError, match=r"model\.net\._target_: .* (which configs may not call|cannot be imported)"):
        check_targets(cfg)


def test_targets_of_hydra_itself_are_not_those_of_a_run() -> None:
    check_targets(compose_raw())


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.functional.gelu",
        "numpy.linspace",
        "datetime.timedelta",
        "datetime.date.fromtimestamp",
        "builtins.dict",
        "sympy.lambdify",
        "yaml.safe_load",
        "operator.itemgetter",
        "joblib.Memory",
    ],
)
def test_what_is_installed_and_plain_types_may_be_named(
    target: str, small: ComposeSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    joblib = ModuleType("joblib")
    vars(joblib)["Memory"] = type("Memory", (), {"__module__": "joblib"})
    monkeypatch.setitem(sys.modules, "joblib", joblib)  # need not be installed
    cfg = small()
    cfg.model.net = {"_target_": target}
    check_targets(cfg)


@pytest.mark.parametrize(
    ("lookup", "said"),
    [
        ({"path": "os.system"}, "is posix.system, which configs may not call"),
        ({"path": "hydra.utils.get_method"}, "which configs may not call"),
        ({"_args_": ["os.system"]}, "must be the dotted path of a class or a function"),
        ({"path": {"_target_": "builtins.str", "_args_": ["os.system"]}}, "must be the dotted path"),
    ],
)
def test_a_lookup_returns_only_what_may_be_named(lookup: dict[str, Any], said: str, small: ComposeSmall) -> None:
    cfg = small()
    cfg.model.net = {"_target_": "hydra.utils.get_method", **lookup}
    with pytest.raises(ConfigError, match=rf"^model\.net\.path: .*{said}"):
        check_targets(cfg)


@pytest.mark.parametrize(
    "written",
    [
        "${oc.create:{_target_: os.system}}",
        "${oc.create:{inner: [{_target_: os.system}]}}",
        "${${vars.resolver}:{_target_: os.system}}",
    ],
)
def test_what_a_resolver_makes_is_held_to_the_same(written: str, small: ComposeSmall) -> None:
    cfg = small("+vars.resolver=oc.create")
    cfg.model.net = written
    with pytest.raises(ConfigError, match=r"^model\.net\S*\._target_: 'os\.system' is posix\.system, which"):
        check_targets(cfg)
    check_targets(small("+vars.list=${oc.create:[1]}", "+vars.broken=${nowhere:1}"))


def test_the_name_of_a_class_may_be_an_interpolation(small: ComposeSmall) -> None:
    cfg = small("+vars.net=torch.nn.Identity")
    cfg.model.net = {"_target_": "${vars.net}"}
    check_targets(cfg)
    cfg.vars.net = "os.system"
    with pytest.raises(ConfigError, match=r"^model\.net\._target_: 'os\.system' is posix\.system, which"):
        check_targets(cfg)


@pytest.mark.parametrize(
    "entry",
    [
        "callbacks: {x: {_target_: shutil.copy, src: a, dst: b}}",
        "callbacks: {x: {_target_: logging.os.system, command: a}}",
        "callbacks: {x: {_target_: '${task_name}'}}",
        "launcher: {_target_: torch.hub.load}",
        "job_logging: {handlers: {x: {(): shutil.copy, src: a, dst: b}}}",
        "job_logging: {handlers: {x: {class: subprocess.Popen, args: [a]}}}",
        "hydra_logging: {filters: {x: {(): builtins.open, file: a}}}",
    ],
)
def test_hydra_makes_only_classes_of_known_packages(entry: str) -> None:
    cfg = compose_raw()
    OmegaConf.set_readonly(cfg.hydra, False)
    OmegaConf.set_struct(cfg, False)
    check_hydra_part(cfg)
    part, given = next(iter(yaml.safe_load(entry).items()))
    cfg.hydra[part] = given
    with pytest.raises(ConfigError, match=rf"^hydra\.{part}\..* is not a class of hydra, "):
        check_hydra_part(cfg)


def test_a_hostile_hydra_callback_is_refused_before_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "file").write_text("here")
    (tmp_path / "mine" / "experiment" / "evil.yaml").write_text(
        f"# @package hydra.callbacks.evil\n_target_: shutil.copy\nsrc: {tmp_path}/file\ndst: {tmp_path}/taken\n"
    )
    done = run_cli(
        "train",
        f"--config-dir={tmp_path}/mine",
        "experiment=evil",
        f"trust=[{tmp_path}]",
        logs=tmp_path / "logs",
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: hydra.callbacks.evil._target_: 'shutil.copy' is not a class of ")
    assert not (tmp_path / "taken").exists()
