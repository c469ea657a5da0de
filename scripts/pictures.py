"""Make the pictures of the README and of docs/terminal.md: terminals as SVG, the report of a sweep as PNG.

python scripts/pictures.py
python scripts/pictures.py --check FOLDER    the same terminals as PNG in a folder, to look at

A PNG needs Chromium.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script
    sys.path[0] = str(ROOT)

from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from tests.support.browser import Browser  # noqa: E402
from tests.support.first_project import files  # noqa: E402
from tests.support.pseudo_terminal import run_in_terminal, screen  # noqa: E402

IMAGES = ROOT / "docs" / "images"
WIDTHS = (80, 120)
# name of the picture: command, text at which it is interrupted
SCENES = {
    "default": ("python src/train.py trainer.max_epochs=4", ""),
    "own-net": ("python src/train.py experiment=spirals", ""),
    "typo": ("python src/train.py experiment=spirals model.net.hiden_size=8 trainer.max_epoch=3", ""),
    "interrupted": ("python src/train.py experiment=spirals trainer.max_epochs=30 resume=auto", "epoch 4/29  "),
    "resumed": ("python src/train.py experiment=spirals trainer.max_epochs=30 resume=auto", ""),
    "sweep": ("python src/train.py -m experiment=spirals model.net.hidden_size=8,64 seed=1,2", ""),
}
README = ("python src/train.py experiment=example", "epoch 6/19  ")
AMID_EPOCH = re.compile(r"epoch 5/19 [^\r]*? \d\d/63 [^\r]*")  # the bar of the README's picture
MAX_LINES = 36  # the middle of a longer output is left out


def make_project(folder: Path) -> Path:
    """Copy the project into a folder, with the files of the README's first project, and return it."""
    project = folder / "my-project"
    for name in ("src", "configs", "fulgurite", "data"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".project-root", project)
    for path, content in files().items():
        (project / path).write_text(content)
    return project


def environment() -> dict[str, str]:
    """Return the variables of a plain terminal."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "TERM": "xterm-256color", "LANG": "C.UTF-8"}


def record(project: Path, scene: tuple[str, str], width: int, until: re.Pattern[str] | None = None) -> list[str]:
    """Run a scene and return the lines of its terminal, up to the end of a match, with neutral paths."""
    command, interrupt_at = scene
    words = [sys.executable, *command.split()[1:]]
    _, written = run_in_terminal(words, width, cwd=project, env=environment(), interrupt_at=interrupt_at)
    if until is not None and (found := until.search(written)):
        written = written[: found.end()]
    shown = [line.replace(str(project), "~/my-project") for line in screen(written, width)]
    while shown and not shown[-1]:
        shown.pop()
    half = MAX_LINES // 2
    return [f"$ {command}", *(shown if len(shown) <= MAX_LINES else [*shown[:half], "...", *shown[-half:]])]


def draw(lines: list[str], width: int, path: Path) -> None:
    """Write lines of a terminal as SVG."""
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="truecolor")
    for line in [*lines, ""]:  # Rich cuts the last line off at its descenders: an underscore would be missing
        console.print(Text.from_ansi(line), overflow="fold")
    svg = console.export_svg(title=f"{width} columns")
    path.parent.mkdir(parents=True, exist_ok=True)
    # without the fonts that Rich has browsers load from elsewhere
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def pictures_of_terminals(folder: Path) -> list[Path]:
    """Write a picture of each scene at each width into a folder; return their paths."""
    paths = []
    for width in WIDTHS:
        with TemporaryDirectory() as temporary:
            project = make_project(Path(temporary))
            for name, scene in SCENES.items():
                paths.append(folder / f"{name}-{width}.svg")
                draw(record(project, scene, width), width, paths[-1])
    return paths


def pictures_as_png(paths: list[Path]) -> None:
    """Write each SVG as PNG beside it."""
    for path in paths:
        with TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as browser:
            browser.open(path)
            browser.picture(path.with_suffix(".png"))


def picture_of_a_report(folder: Path) -> None:
    """Write docs/images/report.png: the page that `python -m fulgurite report` writes."""
    sweep = folder / "sweep"
    grid = ("seed=1,2,3", "model.optimizer.lr=0.0003,0.003", "data.batch_size=32,128", "trainer.max_epochs=4")
    metric = ("optimized_metric=val/acc_best", "extras.print_config=false", f"hydra.sweep.dir={sweep}")
    for command in (["src/train.py", "-m", *grid, *metric], ["-m", "fulgurite", "report", str(sweep)]):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with Browser(folder / "browser") as browser:
        browser.open(sweep / "report.html")
        browser.picture(IMAGES / "report.png")


def main() -> None:
    """Make all pictures, or those of terminals to look at."""
    if sys.argv[1:2] == ["--check"]:
        pictures_as_png(pictures_of_terminals(Path(sys.argv[2])))
        return
    with TemporaryDirectory() as folder:
        pictures_of_terminals(IMAGES / "terminal")
        draw(record(make_project(Path(folder)), README, WIDTHS[1], AMID_EPOCH), WIDTHS[1], IMAGES / "run.svg")
        picture_of_a_report(Path(folder))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "2"
    main()
