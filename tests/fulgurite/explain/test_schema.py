"""`python -m fulgurite schema`: the shipped configs fit, wrong keys and values do not, and an editor completes."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]  # of check-jsonschema
from omegaconf import OmegaConf

from fulgurite.core.errors import UserError
from fulgurite.explain import schema_cli
from fulgurite.explain.json_schema import make_schemas
from fulgurite.explain.schema_cli import main, write_schemas, write_settings
from tests.support.language_server import LanguageServer, yaml_language_server
from tests.support.project import CONFIGS, ROOT

HALF_WRITTEN = """# @package _global_
trainer:
  max_
model:
  optimizer:
    _target_: torch.optim.Adam
    w
"""


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of the project, which several tests read."""
    return make_schemas(CONFIGS)


def errors(group: str, text: str) -> list[str]:
    """Return what the schema of a group says about a config file."""
    content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    return [error.message for error in Draft7Validator(schemas()[group]).iter_errors(content)]


def test_every_config_of_the_project_fits_the_schema_of_its_group() -> None:
    for group, schema in schemas().items():
        Draft7Validator.check_schema(schema)
        files = CONFIGS.glob("*.yaml") if group == "configs" else (CONFIGS / group).rglob("*.yaml")
        for file in files:
            assert errors(group, file.read_text()) == [], file


@pytest.mark.parametrize(
    ("group", "text", "wrong"),
    [
        ("trainer", "max_epoch: 3", "max_epoch"),
        ("trainer", "max_epochs: many", "many"),
        ("trainer", "max_epochs: -2", "-2"),
        ("trainer", "strategy: {_target_: lightning.pytorch.strategies.DDPStrategy, start_method: sp}", "sp"),
        ("experiment", "model: {optimizer: {_target_: torch.optim.Adam, lrr: 0.1}}", "lrr"),
        ("experiment", "trainr: {max_epochs: 1}", "trainr"),
        ("experiment", "callbacks: {early_stopping: {patienc: 3}}", "patienc"),
        ("extras", "print_confg: true", "print_confg"),
        ("extras", "print_config: all", "all"),
        ("callbacks", "x: {}\nearly_stopping: {mode: 3}", "3"),
        ("configs", "monitor_mode: maximum", "maximum"),
    ],
)
def test_a_wrong_key_or_value_does_not_fit(group: str, text: str, wrong: str) -> None:
    assert any(repr(wrong)[1:-1] in message for message in errors(group, text)), errors(group, text)


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("trainer", "max_epochs: ${vars.epochs}"),
        ("trainer", "max_epochs: ???"),
        ("trainer", "{_target_: src.new.Trainer, anything: 1}"),  # a class that no config names yet
        ("experiment", "callbacks: {early_stopping: null, mine: {_target_: src.new.Callback, x: 1}}"),
        ("experiment", "model: {net: {_target_: src.new.Net, width: 3}}"),
        ("experiment", "defaults: [override /model: mnist, _self_]\nvars: {a: {b: 1}}"),
    ],
)
def test_interpolations_and_classes_that_no_config_names_fit(group: str, text: str) -> None:
    assert errors(group, text) == []


def test_settings_of_vs_code_keep_what_is_there_and_are_not_written_over_comments(tmp_path: Path) -> None:
    file = tmp_path / ".vscode" / "settings.json"
    write_settings(file, {"./a.json": "configs/a/**/*.yaml"})
    file.write_text(json.dumps({"editor.rulers": [120], "yaml.schemas": {"./own.json": "own.yaml"}}))
    write_settings(file, {"./a.json": "configs/a/**/*.yaml"})
    expected = {"./own.json": "own.yaml", "./a.json": "configs/a/**/*.yaml"}
    assert json.loads(file.read_text()) == {"editor.rulers": [120], "yaml.schemas": expected}
    file.write_text("{// mine\n}")
    with pytest.raises(UserError, match=r"is not plain JSON.*yaml.schemas.*--no-settings"):
        write_settings(file, {})
    assert file.read_text() == "{// mine\n}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"[1]", "holds a list, not a dictionary"),
        (b'"x"', "holds a str, not a dictionary"),
        (b'{"yaml.schemas": [1]}', "yaml.schemas is a list, not a dictionary"),
        (b'{"a": 1', "is not plain JSON"),
        (b"// c\n{}", "is not plain JSON"),
        (b"\xff{}", "is not plain JSON"),
        (b"[" * 100_000, "is not plain JSON"),
    ],
)
def test_settings_of_vs_code_that_cannot_be_extended_are_one_line_and_stay(
    text: bytes,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in (".vscode", "configs"):
        (tmp_path / folder).mkdir()
    file = tmp_path / ".vscode" / "settings.json"
    file.write_bytes(text)
    monkeypatch.setattr(schema_cli, "project_root", lambda: tmp_path)
    assert main([]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: {problem}")
    assert file.read_bytes() == text


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--no-settings", f"--folder={tmp_path}/file/schemas"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/file")
    assert "cannot be written" in line


def test_configs_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    for group in ("latin", "folder", "broken"):
        (tmp_path / group).mkdir()
    (tmp_path / "latin/a.yaml").write_bytes(b"name: Z\xfcrich\n")
    (tmp_path / "folder/a.yaml").mkdir()
    (tmp_path / "broken/a.yaml").write_text("_target_: [\n")
    (tmp_path / "broken/b.yaml").write_text("_target_: src.nowhere.Net\n")
    assert {"latin", "folder", "broken"} <= set(make_schemas(tmp_path))


def test_the_command_writes_a_schema_a_group_without_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; from fulgurite.__main__ import main; main(['schema', '--no-settings', '--folder={tmp_path}']); "
    )
    code += "sys.exit(bool({'torch', 'lightning'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {file.stem for file in tmp_path.iterdir()} == schemas().keys()
    assert main(["--foldr=x"]) == 2


@pytest.mark.slow
def test_a_language_server_completes_and_flags_a_wrong_key(tmp_path: Path) -> None:
    command = yaml_language_server(tmp_path / "npm")
    root = tmp_path / "project"
    patterns = write_schemas_of_the_project(root)
    mapped = {str((root / name).as_uri()): pattern for name, pattern in patterns.items()}
    settings = {"yaml": {"schemas": mapped, "validate": True, "completion": True, "schemaStore": {"enable": False}}}
    with LanguageServer(command, root, settings) as server:
        bad = root / "configs/trainer/bad.yaml"
        bad.write_text("max_epoch: 3\nlog_every_n_steps: often\n")
        messages = [one["message"] for one in server.open(bad)]
        assert any("max_epoch is not allowed" in message for message in messages), messages
        assert any("integer" in message for message in messages), messages
        new = root / "configs/experiment/new.yaml"
        new.write_text(
            "# @package _global_\ntrainer:\n  max_\nmodel:\n  optimizer:\n    _target_: torch.optim.Adam\n    w\n"
        )
        server.open(new)
        assert {"max_epochs", "max_steps", "max_time"} <= set(server.complete(new, 2, 6))
        assert "weight_decay" in server.complete(new, 6, 5)
        good = root / "configs/experiment/example.yaml"
        assert server.open(good) == []
    # the comment that maps a single file, for other editors
    only = {"yaml": {"validate": True, "schemaStore": {"enable": False}}}
    with LanguageServer(command, root, only) as server:
        commented = root / "configs/trainer/commented.yaml"
        commented.write_text("# yaml-language-server: $schema=../../.vscode/schemas/trainer.json\nmax_epoch: 3\n")
        assert any("max_epoch is not allowed" in one["message"] for one in server.open(commented))


def write_schemas_of_the_project(root: Path) -> dict[str, str]:
    """Copy the configs to a folder and write their schemas beside them."""
    for file in CONFIGS.rglob("*.yaml"):
        copy = root / "configs" / file.relative_to(CONFIGS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return write_schemas(root, root / schema_cli.FOLDER)
