"""Every command that the README shows is run, and every file it links to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fulgurite.__main__ import COMMANDS as COMMANDS_OF_LIBRARY
from fulgurite.config.compose import compose
from fulgurite.doctor import cli as doctor
from fulgurite.exact_resume.proof import cli as prove_resume
from fulgurite.reporting import report_cli as report
from fulgurite.reporting import runs_cli as runs
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.validation.composition import explain_composition
from fulgurite.validation.validate import find_problems
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import run_cli
from tests.support.project import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
INLINE = re.findall(r"`(python (?:src/|-m fulgurite )[^`]+)`", README)
SHOWN = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python src/")]
TOOLS = [command for command in INLINE if command.startswith("python -m fulgurite ")]
COMMANDS = sorted({*SHOWN, *(command for command in INLINE if "-sc install" not in command)} - {*TOOLS})
# what tests/test_make.py, tests/test_completion.py and the continuous integration do
ELSEWHERE = ("git clone", "make train", "python -m venv", "torchrun")  # the last: tests/test_launchers.py
FASHION = Path("/usr/share/datasets/fashion-mnist")
SHORT = (
    "++trainer.max_epochs=1",
    "++trainer.limit_train_batches=3",
    "++trainer.limit_val_batches=1",
    "++trainer.limit_test_batches=1",
    "extras.print_config=false",
)


def words_of(command: str, run: Path) -> list[str]:
    """Return the words of a command, with a real run in the place of `logs/train/runs/<run>`."""
    return shlex.split(command.replace("logs/train/runs/<run>", str(run)))[1:]


def test_every_line_of_every_block_is_a_command_that_some_test_runs() -> None:
    lines = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
    assert len(COMMANDS) >= 15
    assert [line for line in lines if not line.startswith(("python src/", *ELSEWHERE))] == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run that commands can go on from."""
    folder = tmp_path_factory.mktemp("finished")
    done = run_cli("train", *SHORT, f"hydra.run.dir={folder}/run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_and_is_valid(command: str, finished: Path, tmp_path: Path) -> None:
    entry_point, *words = words_of(command, finished)
    overrides = expand_shorthands([word for word in words if not word.startswith("-")], Path(entry_point).stem)
    # of a space, a trial has one value
    overrides = [re.sub(r"=(?:choice|interval|tag)\(.*?([\d.]+)\D*$", r"=\1", word) for word in overrides]
    if any("glob(" in word or re.search(r"=[^\[]*,", word) for word in overrides):
        # several values: Hydra composes each job by itself
        overrides = [re.sub(r"=([^\[(]*?),.*", r"=\1", word) for word in overrides if "glob(" not in word]
    overrides = [re.sub(r"=range\(\d+\)", "=0", word) for word in overrides]
    try:
        cfg = compose(overrides, config_name=Path(entry_point).stem, output_dir=tmp_path)
    except Exception as error:  # noqa: BLE001 - whatever it is, the reader of the README would see it
        pytest.fail(str(explain_composition(error, overrides, Path(entry_point).stem)))
    assert [problem.line for problem in find_problems(cfg)] == []


def test_every_command_of_a_tool_is_one_that_it_takes(tmp_path: Path) -> None:
    assert {words_of(command, tmp_path)[2] for command in TOOLS} == COMMANDS_OF_LIBRARY.keys()
    for command in TOOLS:
        _, _, entry_point, *words = words_of(command.replace("logs/train/multiruns/<sweep>", str(tmp_path)), tmp_path)
        if entry_point == "runs":
            assert runs.read_words(words).folder == ROOT / "logs"
        elif entry_point == "report":
            assert report.read_words(words) == (tmp_path, "val/acc_best", None)
        elif entry_point == "doctor":
            assert doctor.read_words(words).bench == ("--bench" in words)
        else:
            overrides, places, control, _ = prove_resume.read_words(words)
            assert (places, control) == (list(prove_resume.PLACES), True)
            assert find_problems(compose(overrides, output_dir=tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(command: str, finished: Path, tmp_path: Path) -> None:
    entry_point, *words = words_of(command, finished)
    if "data=fashion_mnist" in words and not FASHION.is_dir():
        pytest.skip(f"needs {FASHION}, or the network")
    short = [word for word in SHORT if "debug=" not in command or "epochs" not in word]
    short += ["hydra.sweeper.n_trials=2"] if "search" in command else []
    if ("ckpt_path" in command or "resume=logs" in command) and entry_point.endswith("train.py"):
        short[0] = "++trainer.max_epochs=2"
    done = run_cli(Path(entry_point).stem, *words, *short, logs=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    # jobs side by side say what they come to in their own console.log
    told = "Sweep: 6 jobs" if "--dry-run" in command else "Sweep: mean" if "launcher=" in command else "Results"
    assert told in done.stdout


def test_the_python_it_shows_runs(small: ComposeSmall, tmp_path: Path, finished: Path) -> None:
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(block.replace("logs/train/runs/<run>", str(finished)), names)  # noqa: S102 - our own README
    data = names["data"]
    assert len(data.test_set) == 500  # type: ignore[attr-defined]
    assert train(small())["test/acc"] >= 0


def test_every_link_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_groups_it_lists_are_the_files_there_are() -> None:
    for row in re.findall(r"^\| `(\w+)` \| (.+) \|$", README, re.MULTILINE):
        group, files = row
        named = set(re.findall(r"`([a-z_]+)`", files))
        there = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        if group in {"trainer", "data", "debug"}:
            assert named == there - {"default"} | ({"default"} if group == "debug" else set())
        else:
            assert named - {"classifier"} <= there
