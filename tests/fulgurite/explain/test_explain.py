"""`python -m fulgurite explain`: the value, each place that set it in order, and who reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fulgurite.config.view import leaves_of
from fulgurite.explain import composition, explain_cli, explanation
from fulgurite.explain.explain_cli import main
from fulgurite.sources import secrets
from tests.support.project import ROOT
from tests.support.servers.doubles import double

Explain = Callable[..., str]
# Configs of the test's own beside those of the project, which a user may replace.
OWN = {
    "trainer/lowest.yaml": "_target_: lightning.pytorch.Trainer\nmax_epochs: 20\naccelerator: cpu\n",
    "trainer/upper.yaml": "defaults:\n  - lowest\n  - _self_\ndevices: 2\n",
    "model/recipe.yaml": """_target_: src.models.classifier.Classifier
num_classes: 10
net: ???
optimizer:
  _target_: torch.optim.Adam
  _partial_: true
  lr: 0.001
  weight_decay: 0.0
""",
    "model/dense.yaml": """defaults:
  - recipe
  - _self_
net:
  _target_: torch.nn.Bilinear
  in1_features: 64
  in2_features: 32
  out_features: 10
""",
    "callbacks/few.yaml": """checkpoint:
  _target_: lightning.pytorch.callbacks.ModelCheckpoint
  monitor: ${monitor}
  save_top_k: 1
stopping:
  _target_: lightning.pytorch.callbacks.EarlyStopping
  monitor: ${monitor}
""",
    "experiment/base.yaml": """# @package _global_
defaults:
  - override /trainer: upper
  - override /model: dense
  - override /callbacks: few
""",
    "experiment/longer.yaml": """# @package _global_
defaults:
  - base
  - _self_
trainer:
  max_epochs: 30
model:
  optimizer:
    lr: 0.002
  net:
    in1_features: 128
""",
    "experiment/other.yaml": """# @package _global_
defaults:
  - base
  - _self_
model:
  net: {_target_: torch.nn.Linear, in_features: 1}
""",
}


@cache
def composed_once(overrides: tuple[str, ...], config_name: str) -> composition.TracedConfig:
    """Compose a config; several tests read the same one."""
    return composition.compose_traced(overrides, config_name)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with `OWN`."""
    folder = tmp_path_factory.mktemp("configs")
    for name, text in OWN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own: Path) -> Explain:
    """Run the command with `OWN` in this process and return its output."""
    monkeypatch.setattr(explain_cli, "compose_traced", lambda texts, name: composed_once(tuple(texts), name))

    def run(*words: str, code: int = 0) -> str:
        given = () if any(word.startswith("hydra.searchpath") for word in words) else with_own(own)
        assert main([*words, *given]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def with_own(own: Path) -> tuple[str, str]:
    """Return the overrides with which Hydra finds a folder."""
    return f"hydra.searchpath=[{own}]", f"trust=[{own}]"


def line_of(own: Path, file: str, key: str) -> str:
    """Return `<file>:<line>` of the first line that starts with a key."""
    lines = OWN[file].splitlines()
    number = next(number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:"))
    return f"{own}/{file}:{number}"


def test_every_place_that_set_a_key_is_listed_in_the_order_in_which_it_applies(explain: Explain, own: Path) -> None:
    text = explain("trainer.max_epochs", "experiment=longer", "trainer.max_epochs=3")
    assert text.splitlines()[0] == "trainer.max_epochs=3"
    places = [line_of(own, file, "max_epochs") for file in ("trainer/lowest.yaml", "experiment/longer.yaml")]
    expected = [*places, "command line: trainer.max_epochs=3", "lightning.pytorch.Trainer(max_epochs: "]
    positions = [text.index(part) for part in expected]
    assert positions == sorted(positions)
    assert f"({own}/trainer/upper.yaml)" in text  # whose defaults list has trainer/lowest
    assert "(command line: experiment=longer)" in text


def test_json_has_the_same_places_with_values_and_the_reader(explain: Explain, own: Path) -> None:
    [found] = json.loads(explain("model.optimizer.lr", "--json", "experiment=longer", "model.optimizer.lr=1e-4"))
    assert found["value"] == 1e-4
    assert [place["value"] for place in found["places"]] == [0.001, 0.002, 1e-4]
    assert found["places"][0]["place"] == line_of(own, "model/recipe.yaml", "lr")
    assert (found["reader"]["name"], found["reader"]["parameter"]) == ("torch.optim.Adam", "lr")


@pytest.mark.parametrize(
    ("key", "reader"),
    [
        ("extras.print_config", "fulgurite.config.schema.Extras(print_config: bool | Literal['full'])"),
        ("callbacks.checkpoint.save_top_k", "lightning.pytorch.callbacks.ModelCheckpoint(save_top_k: int = 1)"),
        ("model.net.in1_features", "torch.nn.Bilinear(in1_features: int)"),
        ("model.net._target_", "hydra.utils.instantiate(_target_)"),
        ("seed", "the library(seed: int | None)"),
        ("hydra.run.dir", "Hydra"),
        ("monitor", "callbacks.checkpoint.monitor, callbacks.stopping.monitor"),
    ],
)
def test_the_reader_of_a_key_is_the_parameter_or_the_dataclass(key: str, reader: str, explain: Explain) -> None:
    assert reader in explain(key, "experiment=base")


def test_an_interpolation_shows_the_keys_and_the_variables_it_reads(
    explain: Explain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = explain("callbacks.stopping.monitor", "monitor=val/loss", "experiment=base")
    assert "callbacks.stopping.monitor=val/loss\n" in text
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
        "+logger.mine.key=${secret:CANARY_KEY}",
        "+vars.token=${oc.env:CANARY_KEY}",
    ]
    keys = ("vars.api_key", "vars", "vars.b.url", "logger.mine.key", "vars.token")
    for words in (keys, (*keys, "--json"), (), ("--json",)):
        text = explain(*words, *overrides)
        assert "canary" not in text
        assert "***" in text


def test_secrets_of_files_and_servers_are_named_and_not_read(
    explain: Explain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("canary-of-a-file")
    asked: list[str] = []
    monkeypatch.setattr(secrets, "open_reader", lambda *_: asked.append("a source"))
    monkeypatch.setattr(secrets, "_vault", {})
    chain = [f"+vars.c{number}=${{vars.c{number + 1}}}" for number in range(12)]
    overrides = (
        "+vars.t=${secret:vault,secret/trackers,wandb}",
        f"+vars.f=Bearer ${{secret:file,{tmp_path}/token}}",
        "+vars.b.x=${..t}",
        "+vars.copy=${vars.b}",
        "+vars.inside=${vars.copy.x}",
        *chain,
        "+vars.c12=${vars.t}",
    )
    text = explain("vars.t", *overrides)
    assert text.startswith("vars.t=***\n")
    assert "secret of Vault secret/trackers,wandb: read when a run uses it\n" in text
    assert "not set" not in text
    assert f"secret of the file {tmp_path}/token: read when" in explain("vars.f", *overrides)
    for words in (("vars", "vars.b", "vars.copy", "vars.inside", "vars.c0"), ()):
        for form in ((), ("--json",)):
            text = explain(*words, *form, *overrides)
            assert "***" in text or not words
            assert "canary" not in text
    assert asked == []


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
    error = explain(key, "experiment=base", code=2)
    assert error == f"error: {key}: the config has no such key. Did you mean {near!r}?\n"


def test_a_mistyped_override_is_refused_as_a_run_refuses_it(explain: Explain) -> None:
    error = explain("trainer.max_epochs", "trainer.max_epoch=3", "experiment=longr", code=2)
    assert "Did you mean 'trainer.max_epochs'?" in error
    assert "Did you mean 'longer'?" in error


@pytest.mark.parametrize("key", ["", ".", "trainer.", ".trainer", "trainer..max_epochs"])
def test_a_key_with_an_empty_part_is_refused(key: str, explain: Explain) -> None:
    assert explain(key, code=2) == f"error: {key!r}: is not a key. Write e.g. trainer.max_epochs.\n"


@pytest.mark.parametrize("key", ["trainer.max_epochs.x", "trainer.accelerator.a.b"])
def test_a_key_below_a_plain_value_is_refused(key: str, explain: Explain) -> None:
    holder = ".".join(key.split(".")[:2])
    error = explain(key, "experiment=base", code=2)
    assert error == f"error: {key}: {holder} is a value without keys. Explain {holder}.\n"


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("trainer.max_epochs[0]", "trainer.max_epochs is a value without keys. Explain trainer.max_epochs."),
        ("vars.sizes[2]", "vars.sizes is a list of 2, from vars.sizes[0]. Explain vars.sizes."),
        ("vars.sizes.0", "vars.sizes is a list of 2, from vars.sizes[0]. Explain vars.sizes."),
        ("vars.none[0].x", "vars.none is a list without items. Explain vars.none."),
        ("hydra.run.dri", "the config has no such key. Did you mean 'hydra.run.dir'?"),
    ],
)
def test_a_key_that_no_override_can_add_is_refused(key: str, line: str, explain: Explain) -> None:
    error = explain(key, "experiment=base", "+vars={sizes: [1, {x: 2}], none: []}", code=2)
    assert error == f"error: {key}: {line}\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-m", "seed=1,2"), "-m: explain shows one run. Leave it out, and pass the values of one job, e.g. seed=1."),
        (("seed=1,2",), "seed=1,2: several values, and explain shows one run. Pass one of them."),
        (("data.fold=range(3)",), "data.fold=range(3): several values, and explain shows one run. Pass one of them."),
    ],
)
def test_the_jobs_of_a_sweep_are_refused_with_what_to_pass(words: tuple[str, ...], line: str, explain: Explain) -> None:
    assert explain("seed", *words, code=2) == f"error: {line}\n"


@pytest.mark.parametrize("value", ["${nope}", "${seed}", "${vars.a}"])
def test_an_interpolation_that_no_run_resolves_says_so(value: str, explain: Explain) -> None:
    text = explain("seed", f"seed={value}", "+vars.a=${vars.b}", "+vars.b=${vars.a}")
    assert text.startswith(f"seed=does not resolve\n  written  {value}\n")
    assert ("nope: is not in the config" in text) is (value == "${nope}")


def test_tags_are_set_by_the_override_that_was_typed(explain: Explain) -> None:
    text = explain("tags", "tags=[a,b]")
    assert "command line: tags=[a,b]  [a, b]\n" in text
    assert "null" not in text


def test_a_parameter_that_no_config_sets_has_the_default_of_its_class(explain: Explain) -> None:
    text = explain("trainer.gradient_clip_algorithm", "experiment=base")
    line = "not set; the parameter has the default None. Set it with +trainer.gradient_clip_algorithm=<value>"
    assert text.startswith(f"trainer.gradient_clip_algorithm: {line}\n")


def test_a_removed_key_and_one_left_out_say_why(explain: Explain, own: Path) -> None:
    text = explain("callbacks.stopping.monitor", "experiment=base", "~callbacks.stopping")
    assert text.startswith("callbacks.stopping.monitor is not in the config\n")
    assert "left out command line: ~callbacks.stopping removes it" in text
    text = explain("model.net.in2_features", "experiment=other")
    assert "model.net.in2_features is not in the config" in text
    assert "Linear" in text
    assert "replaces Bilinear" in text
    assert line_of(own, "model/dense.yaml", "in2_features") in text


def test_a_block_lists_each_key_below_with_its_place(explain: Explain, own: Path) -> None:
    lines = explain("model.optimizer", "experiment=longer").splitlines()
    assert lines[0] == "model.optimizer:"
    assert any(line.split()[:2] == ["model.optimizer.lr", "0.002"] and "experiment/longer" in line for line in lines)
    assert any("weight_decay" in line and f"{own}/model/recipe.yaml" in line for line in lines)


def test_without_a_key_all_that_differs_from_the_defaults_is_listed(explain: Explain, own: Path) -> None:
    overrides = ("experiment=longer", "~callbacks.stopping", "+trainer.precision=bf16-mixed")
    rows = {row["key"]: row for row in json.loads(explain("--json", *overrides))}
    assert rows["trainer.precision"] | {"key": ""} == {
        "key": "",
        "value": "bf16-mixed",
        "default": None,
        "place": "command line: +trainer.precision=bf16-mixed",
        "is_new": True,
        "is_removed": False,
    }
    assert rows["model.net.in1_features"]["value"] == 128
    cfg, same = composed_once((*overrides, *with_own(own)), "train"), composed_once((), "train")
    before, after = dict_of(same), dict_of(cfg)
    assert {key for key, row in rows.items() if row["is_removed"]} == before.keys() - after.keys() != set()
    changed = {key for key, value in after.items() if before.get(key, ...) != value}
    assert {key for key, row in rows.items() if not row["is_removed"]} == changed
    row = next(line for line in explain(*overrides).splitlines() if line.startswith("trainer.precision"))
    assert row.split()[:3] == ["trainer.precision", "bf16-mixed", "-"]
    assert row.endswith("  command line: +trainer.precision=bf16-mixed")


def test_the_defaults_differ_in_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == "the defaults\n"


def dict_of(traced: composition.TracedConfig) -> dict[str, object]:
    """Return key to value."""
    return dict(leaves_of(traced.view.written))


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
