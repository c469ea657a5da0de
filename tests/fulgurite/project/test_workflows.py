"""What GitHub runs for us has few rights, is pinned, and tests the Pythons we promise."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
USES = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$")

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.name for path in WORKFLOWS])


def load(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def steps_of(path: Path) -> Iterator[dict[str, Any]]:
    for job in load(path)["jobs"].values():
        yield from job["steps"]


def test_the_promised_workflows_are_there() -> None:
    assert {path.name for path in WORKFLOWS} >= {"test.yaml", "quality.yaml", "nightly-newest.yaml", "release.yaml"}


@each_workflow
def test_every_action_is_pinned_by_commit_and_says_its_version(path: Path) -> None:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    uses = [line.removeprefix("- ").removeprefix("uses: ") for line in lines if re.match(r"(- )?uses:", line)]
    assert uses, "a workflow without an action checks nothing out"
    assert [use for use in uses if not USES.match(use)] == []


def test_one_action_is_one_commit_everywhere() -> None:
    commits: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for step in steps_of(path):
            if "uses" in step:
                action, commit = step["uses"].split("@")
                commits.setdefault(action, set()).add(commit)
    assert {action: found for action, found in commits.items() if len(found) > 1} == {}


@each_workflow
def test_rights_are_granted_job_by_job(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for name, job in workflow["jobs"].items():
        granted = job["permissions"]
        allowed = {"contents": "write"} if (path.name, name) == ("release.yaml", "release") else {"contents": "read"}
        assert granted == allowed, name


@each_workflow
def test_jobs_end_and_do_not_pile_up(path: Path) -> None:
    workflow = load(path)
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 60, name


@each_workflow
def test_nothing_from_outside_reaches_a_shell(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "pull_request_target" not in text
    for step in steps_of(path):
        assert "${{" not in step.get("run", ""), step
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_the_matrix_is_every_promised_python_on_three_systems() -> None:
    requires = re.search(
        r'^requires-python = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert requires
    promised = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in SpecifierSet(requires[1])]
    matrix = load(ROOT / ".github" / "workflows" / "test.yaml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert [name.split("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_dependabot_waits_before_it_proposes() -> None:
    updates = load(ROOT / ".github" / "dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)


@each_workflow
def test_a_workflow_follows_githubs_schema(path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    run_tool([sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)])


def test_zizmor_finds_nothing() -> None:
    run_tool([find_tool("zizmor"), "--offline", "--quiet", "--no-progress", str(ROOT / ".github")])


def test_actionlint_finds_nothing() -> None:
    run_tool([find_tool("actionlint"), *map(str, WORKFLOWS)])


def find_tool(name: str) -> str:
    tool = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if tool is None:
        pytest.skip(f"{name} is not installed")
    return tool


def run_tool(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
