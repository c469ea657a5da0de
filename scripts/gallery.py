"""Run the gallery and write its page from the records of the runs.

    python scripts/gallery.py run [NAME ...]   train entries, each with its seeds, and record what they measured
    python scripts/gallery.py page             write docs/gallery.md and the heads of configs from docs/gallery.json
    python scripts/gallery.py schedules        draw the files of configs/scheduler in one plot

The runs lie in logs/gallery/. Each entry states the range that its results are required to lie in.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean, median
from textwrap import fill
from typing import Any

# a script's own folder is first in sys.path: replace it by the root
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.gallery_entries import ENTRIES, Entry

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "logs/gallery"
RECORD = ROOT / "docs/gallery.json"
PAGE = ROOT / "docs/gallery.md"
START, END = "<!-- made by scripts/gallery.py -->", "<!-- end -->"


class FailedError(Exception):
    """A run of an entry failed; the message names its output."""


def train(entry: Entry, different: str, folder: Path) -> None:
    """Train one run on one thread, and write the CPU minutes it took beside its results.

    A run that has them is not repeated. Its output is `<folder>.txt`.

    Raises:
        FailedError: It did not end with exit code 0.
    """
    if (folder / "cpu_minutes.txt").is_file():
        return
    extra = os.environ.get("GALLERY_OVERRIDES", "").split()  # e.g. folders of files that are not downloaded
    command = [sys.executable, "src/train.py", *entry.overrides.split(), *different.split(), f"hydra.run.dir={folder}"]
    output = folder.with_suffix(".txt")
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w") as out:
        process = subprocess.Popen(
            [*command, *extra], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=out, stderr=out
        )
        _, status, used = os.wait4(process.pid, 0)  # its own CPU time, while other runs train beside it
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        raise FailedError(f"{(lines or ['no output'])[-1]} ({output})")
    (folder / "cpu_minutes.txt").write_text(f"{(used.ru_utime + used.ru_stime) / 60:.2f}\n")


def run(entry: Entry) -> dict[str, Any]:
    """Train each run of an entry; return the measured values and the CPU minutes of one run."""
    values: dict[str, list[float]] = {str(band): [] for band in entry.bands}
    minutes = []
    for number, different in enumerate(entry.runs()):
        folder = LOGS / entry.name / str(number)
        train(entry, different, folder)
        minutes.append(float((folder / "cpu_minutes.txt").read_text()))
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        for band in entry.bands:
            values[str(band)].append(band.value(rows))
    if entry.folds:
        values = {band: [fmean(folds)] for band, folds in values.items()}
    missed = [str(band) for band in entry.bands if not all(map(band.holds, values[str(band)]))]
    return {"values": values, "cpu_minutes": round(median(minutes), 1), "missed": missed}


def shown(values: list[float]) -> str:
    """Return the least and the largest of some values, to three digits."""
    least, most = (f"{value:.3g}" for value in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


def page() -> str:
    """Return the table of the page."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    lines = [
        "| section | system | after `python src/train.py` | the book's result | required | measured | CPU minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in ENTRIES:
        found = record.get(entry.name)
        bands = "<br>".join(map(str, entry.bands)) or "-"
        measured = "<br>".join(map(shown, found["values"].values())) if found and found["values"] else "not run"
        minutes = str(found.get("cpu_minutes", "-")) if found else "-"
        cells = [entry.section, entry.title, f"`{entry.command}`", entry.book, bands, measured, minutes]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pictures() -> str:
    """Copy the pictures and texts of the first runs to docs/gallery; return the section of the page that shows them."""
    parts = []
    for entry in ENTRIES:
        source, copy = (
            LOGS / entry.name / "0" / entry.picture,
            PAGE.with_suffix("") / f"{entry.name}{Path(entry.picture).suffix}",
        )
        if entry.picture and source.is_file():
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(source.read_bytes())
        if entry.picture and copy.is_file():
            shown = f"![{entry.title}](gallery/{copy.name})"
            if copy.suffix == ".txt":
                shown = f"```text\n{fill(copy.read_text().strip(), 100, replace_whitespace=False)}\n```"
            parts.append(f"`{entry.command}`: {entry.title}, section {entry.section}\n\n{shown}")
    return "\n\n".join(["## Pictures", "Written by the runs of seed 0 into their run directories.", *parts])


def write_heads() -> None:
    """Write the measured results into the line `measured` of each experiment's head."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    for path in sorted((ROOT / "configs/experiment/gallery").glob("*.yaml")):
        found = []
        for entry in ENTRIES:
            own, *more = entry.overrides.split()
            if own == f"experiment=gallery/{path.stem}" and record.get(entry.name, {}).get("values"):
                metrics = zip((band.title for band in entry.bands), record[entry.name]["values"].values(), strict=True)
                text = ", ".join(f"{metric} {shown(values)}" for metric, values in metrics)
                seeds = f"{entry.seeds} seeds" if entry.seeds > 1 else "1 seed"
                seeds = f"mean of {entry.folds} folds" if entry.folds else seeds
                minutes = f"{record[entry.name].get('cpu_minutes', '-')} CPU min"
                found.append(f"{text} ({', '.join(filter(None, [' '.join(more), seeds, minutes]))})")
        lines = path.read_text().splitlines()
        first, *_ = [number for number, line in enumerate(lines) if line.startswith("#   measured")]
        head = [f"#   measured  {text}" for text in found or ["not yet"]]
        rest = [line for line in lines[first:] if not line.startswith("#   measured")]
        path.write_text("\n".join([*lines[:first], *head, *rest]) + "\n")


def draw_schedules(path: Path, epochs: int = 40, lr: float = 0.3) -> Path:
    """Draw the learning rate of each epoch under each file of `configs/scheduler`; return the path of the picture."""
    import torch
    from hydra.utils import instantiate
    from matplotlib.figure import Figure
    from omegaconf import OmegaConf

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="learning rate")
    for file in sorted((ROOT / "configs/scheduler").glob("*.yaml")):
        files = [file.with_name("cosine.yaml"), file] if file.stem == "warmup_cosine" else [file]
        settings = OmegaConf.merge(*map(OmegaConf.load, files)).scheduler
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        scheduler = instantiate(settings)(optimizer=optimizer) if settings else None
        rates = []
        for _ in range(epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        axes.plot(rates, drawstyle="steps-post", label=file.stem)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def run_all(names: list[str]) -> int:
    """Train entries, one on each CPU core, and record what they measured; return the exit code.

    Args:
        names: Of the entries; none takes all.
    """
    unknown = [name for name in names if name not in {entry.name for entry in ENTRIES}]
    if unknown:
        known = ", ".join(entry.name for entry in ENTRIES)
        print(f"error: {', '.join(unknown)}: there is no such entry. There is {known}", file=sys.stderr)
        return 2
    chosen = [entry for entry in ENTRIES if not names or entry.name in names]
    failed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(run, entry): entry for entry in chosen}
        for done in as_completed(runs):
            entry = runs[done]
            try:
                found = done.result()
            except FailedError as error:
                failed.append(f"{entry.name}: {error}")
                continue
            record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
            RECORD.write_text(json.dumps({**record, entry.name: found}, indent=2) + "\n")
            failed += [f"{entry.name}: {band} is missed" for band in found["missed"]]
            print(f"{entry.name}: {found}", flush=True)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(failed))


def main(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    if arguments[:1] == ["run"]:
        return run_all(arguments[1:])
    if arguments == ["schedules"]:
        print(draw_schedules(LOGS / "schedules.png"))
        return 0
    if arguments == ["page"]:
        head, _, rest = PAGE.read_text().partition(START)
        PAGE.write_text(f"{head}{START}\n{page()}\n\n{pictures()}\n{END}{rest.partition(END)[2]}")
        write_heads()
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
