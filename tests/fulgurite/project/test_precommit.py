"""Hooks and `make check` are the same tools in the same versions, taken from PyPI alone."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
HOOKS: list[dict[str, Any]] = [
    hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repo["hooks"]
]
PIN = re.compile(r"^([a-z0-9-]+)(?:\[[a-z]+\])?==([0-9.]+)$")
hook_pins = runpy.run_path(str(ROOT / "scripts" / "hook_pins.py"))


def pinned(name: str) -> list[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.split()[0].split("==")[1] for line in lines if line.startswith(f"{name}==")]


def test_every_hook_is_local() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert {repo["repo"] for repo in repos} == {"local"}


@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_a_hook_takes_one_pinned_package_at_the_version_of_make_check(hook: dict[str, Any]) -> None:
    if hook["language"] == "system":
        assert hook["entry"].startswith(".venv/bin/python -m "), "a tool from nowhere"
        return
    assert hook["language"] == "python"
    (dependency,) = hook["additional_dependencies"]
    found = PIN.match(dependency)
    assert found, dependency
    name, version = found.groups()
    assert pinned(name) == [version], f"{name}: run python scripts/hook_pins.py"


@pytest.mark.parametrize(
    "tool",
    [
        "ruff",
        "mypy",
        "yamllint",
        "codespell",
        "shellcheck",
        "nbstripout",
        "detect-secrets",
        "check-jsonschema",
        "zizmor",
    ],
)
def test_a_promised_tool_is_a_hook_and_a_check(tool: str) -> None:
    check = (ROOT / "scripts" / "check.sh").read_text(encoding="utf-8")
    assert any(tool in hook["entry"] for hook in HOOKS)
    assert tool in check or tool.replace("-", "_") in check


def test_the_pins_of_hooks_follow_the_requirements() -> None:
    hooks = 'additional_dependencies: [ruff==0.1.0]\nadditional_dependencies: ["codespell[toml]==2.0.0"]\n'
    versions = hook_pins["pins"]("ruff==0.17.5\nCodeSpell==2.4.3 ; python_version < '4'  # via x\n# mypy==1.0\n")
    assert versions == {"ruff": "0.17.5", "codespell": "2.4.3"}
    assert hook_pins["raised"](hooks, versions) == hooks.replace("0.1.0", "0.17.5").replace("2.0.0", "2.4.3")


def test_a_hook_whose_tool_is_not_pinned_is_refused() -> None:
    with pytest.raises(KeyError, match="ruff"):
        hook_pins["raised"]("[ruff==0.1.0]", {})


def test_actions_of_the_quality_workflow_run_these_hooks() -> None:
    workflow = (ROOT / ".github" / "workflows" / "quality.yaml").read_text(encoding="utf-8")
    assert "pre_commit run --all-files" in workflow
