"""Every command that the README and the pages of docs/ show is run, and every file they link to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fulgurite.__main__ import COMMANDS as COMMANDS_OF_LIBRARY
from fulgurite.__main__ import main
from fulgurite.config.compose import compose
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.validation.composition import explain_composition
from fulgurite.validation.validate import find_problems
from scripts.by_owner import is_shipped
from tests.support.cli import run_cli
from tests.support.project import ROOT, readme

if not readme():
    pytest.skip("the README is the project's own", allow_module_level=True)
PAGES = [ROOT / "README.md", ROOT / "fulgurite/README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
LINES = [
    line
    for text in TEXTS.values()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
INLINE = [command for text in TEXTS.values() for command in re.findall(r"`(python (?:src/|-m fulgurite )[^`]+)`", text)]
# test_first_project.py, test_completion.py, and with servers in the place of the address sources/test_runs.py run these
OF_OTHER_TESTS = ("experiment=spirals", "-sc install", "hydra.searchpath=[")
SHOWN = {command for command in [*LINES, *INLINE] if not any(text in command for text in OF_OTHER_TESTS)}
ANSWERS = {"python src/train.py --help": "== Config ==", "python src/train.py --cfg job": "task_name: train"}
RUNS = sorted(command for command in SHOWN if command.startswith("python src/") and " --cfg" not in command)
RUNS = [command for command in RUNS if command not in ANSWERS]
LIBRARY = sorted(command for command in SHOWN if command.startswith("python -m fulgurite "))
# what test_make.py, test_completion.py, test_launch_env.py and test_job_scripts.py do
ELSEWHERE = ("git clone", "make ", "python -m venv", "pip install", "conda env", "torchrun", "srun", "mpiexec", "eval ")
FASHION = Path("/usr/share/datasets/fashion-mnist")
SHORT = (
    "++trainer.max_epochs=1",
    "++trainer.limit_train_batches=3",
    "++trainer.limit_val_batches=1",
    "++trainer.limit_test_batches=1",
    "extras.print_config=false",
)


def arguments_of(command: str, run: Path) -> list[str]:
    """Return the arguments of a command, with a real run in the place of `logs/train/runs/<run>`."""
    return shlex.split(command.replace("logs/train/runs/<run>", str(run)))[1:]


def test_every_line_of_every_block_is_a_command_that_some_test_runs() -> None:
    assert len(RUNS) >= 15
    known = ("python src/", "python -m fulgurite ", *ELSEWHERE)
    assert [line for line in LINES if not line.startswith(known)] == []


def test_the_readme_stays_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) < 250


@pytest.mark.parametrize("command", ANSWERS)
def test_what_only_prints(command: str) -> None:
    done = run_cli("train", *shlex.split(command)[2:], cold=True)
    assert done.returncode == 0, done.stderr
    assert ANSWERS[command] in done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run that commands can resume from."""
    folder = tmp_path_factory.mktemp("finished")
    done = run_cli("train", *SHORT, f"hydra.run.dir={folder}/run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def edited_choices(overrides: list[str]) -> list[str]:
    """Return the shipped configs, edited by their user, that a command chooses: what they hold is not the README's."""
    choices = [ROOT / f"configs/{text.replace('=', '/')}.yaml" for text in overrides]
    return [path.name for path in choices if path.is_file() and not is_shipped(path)]


@pytest.mark.parametrize("command", RUNS)
def test_every_run_composes_and_is_valid(command: str, finished: Path, tmp_path: Path) -> None:
    entry_point, *arguments = arguments_of(command, finished)
    config_name = Path(entry_point).stem
    overrides = expand_shorthands([text for text in arguments if not text.startswith("-")], config_name)
    # of a search space, a trial has one value; of several values, Hydra composes each job by itself
    overrides = [re.sub(r"=(?:choice|interval|tag)\(.*?([\d.]+)\D*$", r"=\1", text) for text in overrides]
    overrides = [text for text in overrides if "glob(" not in text]
    overrides = [re.sub(r"=range\(\d+\)", "=0", text) for text in overrides]
    if "-m" in arguments:
        overrides = [re.sub(r"=([^\[({]*?),.*", r"=\1", text) for text in overrides]
    try:
        cfg = compose(overrides, config_name=config_name, output_dir=tmp_path)
    except Exception as error:  # noqa: BLE001 - whatever it is, the reader would see it
        pytest.fail(str(explain_composition(error, overrides, config_name)))
    problems = [problem.line for problem in find_problems(cfg)]
    if problems and (edited := edited_choices(overrides)):
        pytest.skip(f"{edited[0]} is your own")
    assert problems == []


def test_every_command_of_the_library_is_shown() -> None:
    assert {shlex.split(command)[3] for command in LIBRARY} == COMMANDS_OF_LIBRARY.keys()


@pytest.mark.parametrize("command", LIBRARY)
def test_every_command_of_the_library_takes_its_arguments(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, name, *arguments = shlex.split(command)[1:]
    module = __import__(COMMANDS_OF_LIBRARY[name][0], fromlist=["parse_args"])
    module.parse_args(arguments)
    assert main([name, "--help"]) == 0
    assert name in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_every_run_runs(command: str, finished: Path, tmp_path: Path) -> None:
    entry_point, *arguments = arguments_of(command, finished)
    if "data=fashion_mnist" in arguments and not FASHION.is_dir():
        pytest.skip(f"needs {FASHION}, or the network")
    if needed := re.search("gallery/(house_prices|airfoil|time_machine)", command):
        pytest.skip(f"{needed[1]} is downloaded; tests/gallery trains on files of its own")
    if "hydra/launcher=slurm" in command or "hydra/launcher=ray" in command:
        pytest.skip("tests/fulgurite/launchers/test_cluster.py")
    short = [text for text in SHORT if "debug=" not in command or "epochs" not in text]
    short += ["hydra.sweeper.n_trials=2"] if "search" in command else []
    if ("ckpt_path" in command or "resume=logs" in command) and entry_point.endswith("train.py"):
        short[0] = "++trainer.max_epochs=2"
    done = run_cli(Path(entry_point).stem, *arguments, *short, logs=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    # jobs in slots write to their own console.log
    last = "Sweep: 6 jobs" if "--dry-run" in command else "Sweep: mean" if "launcher=" in command else "Results"
    assert last in done.stdout


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_to_a_file(page: str) -> None:
    folder = (ROOT / page).parent
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXTS[page]) if "://" not in link]
    assert [link for link in links if link and not (folder / link).exists()] == []


def test_every_anchor_is_a_heading() -> None:
    for page, text in TEXTS.items():
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
            path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page}: {target}#{anchor}"
