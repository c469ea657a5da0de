"""Make the pictures of the README: a run in the terminal as SVG, the report of a sweep as PNG (needs Chromium).

python scripts/pictures.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from tests.support.browser import Browser  # noqa: E402

IMAGES = ROOT / "docs" / "images"
WIDTH, LINES = 100, 28


def run(*arguments: str) -> str:
    """Run a command of the project and return its output, with neutral paths."""
    env = {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


def picture_of_a_run(folder: Path) -> None:
    """Write docs/images/run.svg: the last lines of a short run."""
    logs = folder / "logs"
    output = run("src/train.py", "trainer.max_epochs=5", "extras.print_config=false", f"paths.log_dir={logs}")
    shown = ["$ python src/train.py trainer.max_epochs=5", *output.replace(str(folder), "~/my-project").splitlines()]
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    for line in [shown[0], *shown[1:][-LINES:]]:
        console.print(Text.from_ansi(line), soft_wrap=False, overflow="ellipsis", no_wrap=True)
    svg = console.export_svg(title="A run")
    IMAGES.mkdir(parents=True, exist_ok=True)
    # without the fonts that Rich has browsers load from elsewhere
    (IMAGES / "run.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def picture_of_a_report(folder: Path) -> None:
    """Write docs/images/report.png: the page that `python -m fulgurite report` writes."""
    sweep = folder / "sweep"
    grid = ("seed=1,2,3", "model.optimizer.lr=0.0003,0.003", "data.batch_size=32,128", "trainer.max_epochs=4")
    run(
        "src/train.py",
        "-m",
        *grid,
        "optimized_metric=val/acc_best",
        "extras.print_config=false",
        f"hydra.sweep.dir={sweep}",
    )
    run("-m", "fulgurite", "report", str(sweep))
    with Browser(folder / "browser") as browser:
        browser.open(sweep / "report.html")
        browser.picture(IMAGES / "report.png")


def main() -> None:
    """Make both pictures."""
    with TemporaryDirectory() as folder:
        picture_of_a_run(Path(folder))
        picture_of_a_report(Path(folder))


if __name__ == "__main__":
    main()
