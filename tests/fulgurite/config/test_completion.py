"""Tab completion offers config groups, options and keys in every shell, without importing torch."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench.measure import CompletedChild, run_child
from tests.support.project import ROOT
from tests.support.run_if import RunIf

pytestmark = RunIf(posix=True)

EXPERIMENTS = {f"experiment={path.stem}" for path in (ROOT / "configs/experiment").glob("*.yaml")}


def ask(line: str, *, shell: str = "bash", entry_point: str = "train", imports: bool = False) -> CompletedChild:
    """Ask a entry_point for completions of `line`, as the shell's completion function does."""
    watch = ["-X", "importtime"] if imports else []
    command = [sys.executable, *watch, f"src/{entry_point}.py", "-sc", f"query={shell}"]
    return run_child(command, env={"COMP_LINE": line, "COMP_POINT": str(len(line))})


# Hydra's zsh uses the answers for bash
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("entry_point", ["train", "eval"])
def test_every_experiment_is_offered(shell: str, entry_point: str) -> None:
    answer = ask(f"python src/{entry_point}.py experiment=", shell=shell, entry_point=entry_point)
    assert answer.exit_code == 0, answer.err
    assert set(answer.out.split()) == EXPERIMENTS


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tra", {"trainer=", "trainer.", "train="}),
        ("trainer=ddp", {"trainer=ddp", "trainer=ddp_sim", "trainer=ddp_spawn"}),
        ("trainer.max_ep", {"trainer.max_epochs="}),
        ("debug=", {f"debug={path.stem}" for path in (ROOT / "configs/debug").glob("*.yaml")}),
        ("experiment=example model.optimizer.l", {"model.optimizer.lr="}),
    ],
)
def test_groups_options_and_keys_are_offered(typed: str, offered: set[str]) -> None:
    assert offered & set(ask(f"python src/train.py {typed}").out.split()) == offered


def test_no_answer_imports_torch() -> None:
    answer = ask("python src/train.py experiment=", imports=True)
    imported = {name.split(".")[0] for name in re.findall(r"\|\s*(\S+)\s*$", answer.err, re.MULTILINE)}
    assert "hydra" in imported  # the pattern finds imports
    assert not imported & {"torch", "lightning", "torchmetrics"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.skipif(" " in str(ROOT), reason="Hydra's function for bash does not quote the project's path")
def test_bash_completes_after_the_line_that_installs_it() -> None:
    line = "python src/train.py experiment="
    script = f"""
        PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH
        eval "$(python src/train.py -sc install=bash)"
        COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD=2
        hydra_bash_completion
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p python
    """
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    *offered, registered = done.stdout.split("\n")[:-1]
    assert set(offered) == EXPERIMENTS, done.stderr
    assert registered.endswith("-F hydra_bash_completion python")


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_the_script_to_install_is_the_shells_own(shell: str) -> None:
    script = run_child([sys.executable, "src/train.py", "-sc", f"install={shell}"]).out
    assert f"hydra_{shell}_completion" in script
    assert f"query={shell}" in script
    checker = shutil.which(shell)
    if checker:
        subprocess.run([checker, "-n"], input=script, text=True, check=True)
