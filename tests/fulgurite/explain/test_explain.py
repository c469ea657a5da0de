"""`python -m fulgurite explain`: the value, each place that set it in order, and who reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fulgurite.explain import composition, explain_cli, explanation
from fulgurite.explain.explain_cli import main
from tests.support.compose import with_file
from tests.support.project import CONFIGS, ROOT
from tests.support.servers.doubles import double

Explain = Callable[..., str]
REPLACES = """# @package _global_
defaults: [override /model: mnist]
model:
  net: {_target_: src.models.nets.convnet.SimpleConvNet, in_channels: 1}
"""


@cache
def composed_once(overrides: tuple[str, ...], config_name: str) -> composition.TracedConfig:
    """Compose a config; several tests read the same one."""
    return composition.compose_traced(overrides, config_name)


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Explain:
    """Run the command in this process and return its output."""
    monkeypatch.setattr(explain_cli, "compose_traced", lambda texts, name: composed_once(tuple(texts), name))

    def run(*words: str, code: int = 0) -> str:
        assert main(words) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def line_of(file: str, key: str) -> str:
    """Return `configs/<file>:<line>` of the first line that starts with a key."""
    lines = (CONFIGS / file).read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:"))
    return f"configs/{file}:{number}"


def test_every_place_that_set_a_key_is_listed_in_the_order_in_which_it_applies(explain: Explain) -> None:
    text = explain("trainer.max_epochs", "experiment=example", "trainer=ddp_sim", "trainer.max_epochs=3")
    assert text.splitlines()[0] == "trainer.max_epochs=3"
    places = [line_of(file, "max_epochs") for file in ("trainer/default.yaml", "experiment/example.yaml")]
    expected = [*places, "command line: trainer.max_epochs=3", "lightning.pytorch.Trainer(max_epochs: "]
    positions = [text.index(part) for part in expected]
    assert positions == sorted(positions)
    assert "(configs/trainer/ddp.yaml)" in text  # whose defaults list has trainer/default
    assert "(command line: experiment=example)" in text


def test_json_has_the_same_places_with_values_and_the_reader(explain: Explain) -> None:
    [found] = json.loads(explain("model.optimizer.lr", "--json", "experiment=example", "model.optimizer.lr=1e-4"))
    assert found["value"] == 1e-4
    assert [place["value"] for place in found["places"]] == [0.001, 0.002, 1e-4]
    assert found["places"][0]["place"] == line_of("model/classifier.yaml", "lr")
    assert (found["reader"]["name"], found["reader"]["parameter"]) == ("torch.optim.Adam", "lr")


@pytest.mark.parametrize(
    ("key", "reader"),
    [
        ("extras.print_config", "fulgurite.config.schema.Extras(print_config: bool | Literal['full'])"),
        ("callbacks.model_checkpoint.save_top_k", "lightning.pytorch.callbacks.ModelCheckpoint(save_top_k: int = 1)"),
        ("model.net.lin1_size", "src.models.nets.dense.SimpleDenseNet(lin1_size: int = 256)"),
        ("model.net._target_", "hydra.utils.instantiate(_target_)"),
        ("seed", "the library(seed: int | None)"),
        ("hydra.run.dir", "Hydra"),
        ("monitor", "callbacks.model_checkpoint.monitor, callbacks.early_stopping.monitor"),
    ],
)
def test_the_reader_of_a_key_is_the_parameter_or_the_dataclass(key: str, reader: str, explain: Explain) -> None:
    assert reader in explain(key)


def test_an_interpolation_shows_the_keys_and_the_variables_it_reads(
    explain: Explain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = explain("callbacks.early_stopping.monitor", "monitor=val/loss")
    assert "callbacks.early_stopping.monitor=val/loss\n" in text
    assert "monitor=val/loss: command line: monitor=val/loss" in text
    (tmp_path / ".env").write_text("IN_FILE=canary-in-file\n")
    monkeypatch.setattr(explanation, "environment_file", lambda: tmp_path / ".env")
    monkeypatch.setenv("IN_FILE", "canary-in-file")
    monkeypatch.setenv("IN_SHELL", "canary-in-shell")
    overrides = ("+vars.a=${oc.env:IN_FILE}", "+vars.b=${oc.env:IN_SHELL}", "+vars.c=${vars.b}", "+vars.d=${oc.env:NO}")
    text = explain("vars.a", "vars.c", "vars.d", *overrides)
    assert "environment variable IN_FILE: set in .env" in text
    assert "environment variable IN_SHELL: set in the environment" in text
    assert "environment variable NO: not set" in text
    assert "canary" not in text


def test_secrets_are_shown_as_stars(explain: Explain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "canary-7f3a9b2c41")
    overrides = [
        "+vars.api_key=canary-typed-99",
        "+vars.b.url=https://me:canary-pass@host/x",  # pragma: allowlist secret
        "logger=wandb",
        "+logger.wandb.key=${secret:CANARY_KEY}",
        "+vars.token=${oc.env:CANARY_KEY}",
    ]
    keys = ("vars.api_key", "vars", "vars.b.url", "logger.wandb.key", "vars.token")
    for words in (keys, (*keys, "--json"), (), ("--json",)):
        text = explain(*words, *overrides)
        assert "canary" not in text
        assert "***" in text


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("trainer.preciion", "trainer.precision"),
        ("model.optimiser.lr", "model.optimizer.lr"),
        ("extras.print_confg", "extras.print_config"),
    ],
)
def test_a_mistyped_key_gets_the_nearest_one(key: str, near: str, explain: Explain) -> None:
    error = explain(key, code=2)
    assert error == f"error: {key}: the config has no such key. Did you mean {near!r}?\n"


def test_a_mistyped_override_is_refused_as_a_run_refuses_it(explain: Explain) -> None:
    error = explain("trainer.max_epochs", "trainer.max_epoch=3", "experiment=exampl", code=2)
    assert "Did you mean 'trainer.max_epochs'?" in error
    assert "Did you mean 'example'?" in error


@pytest.mark.parametrize("key", ["", ".", "trainer.", ".trainer", "trainer..max_epochs"])
def test_a_key_with_an_empty_part_is_refused(key: str, explain: Explain) -> None:
    assert explain(key, code=2) == f"error: {key!r}: is not a key. Write e.g. trainer.max_epochs.\n"


@pytest.mark.parametrize("key", ["trainer.max_epochs.x", "trainer.accelerator.a.b"])
def test_a_key_below_a_plain_value_is_refused(key: str, explain: Explain) -> None:
    holder = ".".join(key.split(".")[:2])
    assert explain(key, code=2) == f"error: {key}: {holder} is a value without keys. Explain {holder}.\n"


def test_a_parameter_that_no_config_sets_has_the_default_of_its_class(explain: Explain) -> None:
    text = explain("trainer.gradient_clip_algorithm")
    line = "not set; the parameter has the default None. Set it with +trainer.gradient_clip_algorithm=<value>"
    assert text.startswith(f"trainer.gradient_clip_algorithm: {line}\n")


def test_a_removed_key_and_one_left_out_say_why(explain: Explain, tmp_path: Path) -> None:
    text = explain("callbacks.nan_guard.find_nan", "~callbacks.nan_guard")
    assert text.startswith("callbacks.nan_guard.find_nan is not in the config\n")
    assert "left out command line: ~callbacks.nan_guard removes it" in text
    text = explain("model.net.lin1_size", *with_file(tmp_path, "experiment/own.yaml", REPLACES), "experiment=own")
    assert "model.net.lin1_size is not in the config" in text
    assert "SimpleConvNet" in text
    assert "replaces SimpleDenseNet" in text
    assert line_of("model/mnist.yaml", "lin1_size") in text


def test_a_block_lists_each_key_below_with_its_place(explain: Explain) -> None:
    lines = explain("model.optimizer", "experiment=example").splitlines()
    assert lines[0] == "model.optimizer:"
    assert any(line.split()[:2] == ["model.optimizer.lr", "0.002"] and "experiment/example" in line for line in lines)
    assert any("weight_decay" in line and "configs/model/classifier.yaml" in line for line in lines)


def test_without_a_key_all_that_differs_from_the_defaults_is_listed(explain: Explain) -> None:
    assert explain() == "the defaults\n"
    overrides = ("experiment=example", "~callbacks.nan_guard", "+trainer.precision=bf16-mixed")
    rows = {row["key"]: row for row in json.loads(explain("--json", *overrides))}
    assert rows["trainer.precision"] | {"key": ""} == {
        "key": "",
        "value": "bf16-mixed",
        "default": None,
        "place": "command line: +trainer.precision=bf16-mixed",
        "is_new": True,
        "is_removed": False,
    }
    assert rows["model.net.lin1_size"]["default"] == 64
    assert rows["callbacks.nan_guard.find_nan"]["is_removed"]
    cfg, same = composed_once(overrides, "train"), composed_once((), "train")
    changed = {key for key, value in composition.leaves_of(cfg.view.written) if dict_of(same).get(key, ...) != value}
    assert {key for key, row in rows.items() if not row["is_removed"]} == changed
    row = next(line for line in explain(*overrides).splitlines() if line.startswith("trainer.precision"))
    assert row.split()[:3] == ["trainer.precision", "bf16-mixed", "-"]
    assert row.endswith("  command line: +trainer.precision=bf16-mixed")


def dict_of(traced: composition.TracedConfig) -> dict[str, object]:
    """Return key to value."""
    return dict(composition.leaves_of(traced.view.written))


def test_a_file_of_a_remote_source_has_its_address_and_line(explain: Explain) -> None:
    files = {
        "experiment/far.yaml": b"# @package _global_\ndefaults:\n  - override /model: far\nseed: 7\n",
        "model/far.json": b'{"_target_": "src.models.classifier.Classifier", "num_classes": 3}',
    }
    with double("http", files) as server:
        address = f"{server.url}/conf"
        words = (f"hydra.searchpath=[{address}]", f"trust=[{address}]", "experiment=far")
        text = explain("seed", *words)
        assert f"{address}/experiment/far.yaml:4  7   (command line: experiment=far)" in text
        text = explain("model.num_classes", *words)
    assert text.startswith("model.num_classes=3\n")
    assert f"({address}/experiment/far.yaml)" in text


def test_control_characters_of_a_config_steer_no_terminal(explain: Explain) -> None:
    text = explain("vars", "seed", "++vars.text='\x1b[2J'", "seed='\x1b[31m'")
    assert "\x1b" not in text
    assert r"seed=\x1b[31m" in text


def test_the_config_of_eval_is_explained_too(explain: Explain) -> None:
    assert explain("ckpt_path", "--config-name=eval").startswith("ckpt_path=???\n")


def test_the_command_imports_neither_torch_nor_lightning() -> None:
    code = "import sys; from fulgurite.__main__ import main; main(['explain', 'trainer.max_epochs']); "
    code += "sys.exit(bool({'torch', 'lightning'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "read by  lightning.pytorch.Trainer" in done.stdout
