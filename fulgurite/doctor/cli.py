"""Check a group of processes before they train: alone, or started as the training will be.

    python -m fulgurite doctor
    torchrun --nproc-per-node 2 -m fulgurite doctor --bench experiment=example
    srun python -m fulgurite doctor --bench --threshold least.yaml --json doctor.json --plot doctor.png

Ranks, machines, addresses and devices; the same versions, code and config on all; interfaces that other machines
reach; a folder that all see; clocks; disk; every collective by exact values; a late rank and a mismatched shape named
in time. With --bench, how fast collectives are by size, each link between two ranks and each processor, and what
falls short of the others. Words without -- are those of the training's command line: their config must be the same on
all ranks. Ends with 0, with 1 when something was found, with 2 on bad input; on every rank.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fulgurite.core.errors import EXIT_CRASH, EXIT_USER, FulguriteError, UserError, did_you_mean
from fulgurite.core.project import project_root
from fulgurite.doctor.bench.bandwidth import BUS_FACTOR
from fulgurite.doctor.bench.thresholds import read_bytes, read_threshold
from fulgurite.doctor.cluster.launcher_placement import read_place
from fulgurite.doctor.cluster.placement import Place

if TYPE_CHECKING:
    from fulgurite.doctor.cluster.rendezvous import Meeting
    from fulgurite.doctor.cluster.watchdog import Watchdog
    from fulgurite.doctor.preflight import Wanted
    from fulgurite.doctor.report import Report
    from fulgurite.doctor.speed import Bench

EXIT_FINDING = 1


class _Words(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists what there is")


def read_words(words: Sequence[str]) -> argparse.Namespace:
    """Return what a command line asks for.

    Raises:
        UserError: A word cannot be used.
    """
    parser = _Words(
        "doctor.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key=value", help="words of the training's command line")
    add("--backend", help="gloo, nccl, ...; NCCL where there are GPUs, else gloo")
    add("--interface", help="network interfaces by comma, instead of GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME")
    add("--timeout", type=float, default=60.0, help="seconds that ranks wait for one another (60)")
    add("--folder", type=Path, default=project_root() / "logs", help="folder that all ranks must see (logs/)")
    add("--min-free", type=float, default=1.0, help="GiB that it must have free (1)")
    add("--max-skew", type=float, default=1.0, help="seconds that clocks may be apart (1)")
    add("--no-drills", action="store_true", help="make no faults on purpose")
    add("--bench", action="store_true", help="measure how fast it is")
    add("--collectives", default=",".join(BUS_FACTOR), help="which ones, by comma (all)")
    add("--max-bytes", default="64MiB", help="largest message (64MiB)")
    add("--factor", type=int, default=4, help="each message over the one before (4)")
    add("--warmup", type=int, default=5, help="calls before those that are measured (5)")
    add("--calls", type=int, default=20, help="calls that are measured at each size (20)")
    add("--seconds", type=float, default=10.0, help="that they may take; slow links get fewer calls, 3 at least (10)")
    add("--link-bytes", default="4MiB", help="messages between two ranks (4MiB)")
    add("--no-links", action="store_true", help="measure no pairs of ranks")
    add(
        "--threshold",
        type=Path,
        help="YAML with the least GB/s on the bus by collective and size; see src/tools/thresholds.py",
    )
    add("--json", type=Path, help="file to write everything to")
    add("--markdown", type=Path, help="file to write the tables to")
    add("--plot", type=Path, help="file to draw time and bandwidth to: .png or .svg")
    asked = parser.parse_intermixed_args(list(words))
    _check(asked)
    return asked


def _check(asked: argparse.Namespace) -> None:
    asked.collectives = [name for name in asked.collectives.split(",") if name]
    for name in asked.collectives:
        if name not in BUS_FACTOR:
            raise UserError(
                f"--collectives {name}: choose from {', '.join(BUS_FACTOR)}{did_you_mean(name, BUS_FACTOR)}"
            )
    for option, least in (
        ("timeout", 1),
        ("seconds", 0.01),
        ("factor", 2),
        ("warmup", 1),
        ("calls", 1),
        ("min_free", 0),
        ("max_skew", 0),
    ):
        value = getattr(asked, option)
        if not least <= value < float("inf"):
            raise UserError(f"--{option.replace('_', '-')} {value:g}: is not a number from {least:g} up")
    for option in ("max_bytes", "link_bytes"):
        setattr(asked, option, read_bytes(getattr(asked, option), f"--{option.replace('_', '-')}"))
    asked.least = read_threshold(asked.threshold) if asked.threshold else None
    if (asked.threshold or asked.plot) and not asked.bench:
        raise UserError(f"--{'threshold' if asked.threshold else 'plot'}: has nothing to go by without --bench; add it")
    if asked.plot and asked.plot.suffix not in {".png", ".svg"}:
        raise UserError(f"--plot {asked.plot}: draws .png and .svg; name such a file")
    for option in ("json", "markdown", "plot"):
        file = getattr(asked, option)
        if file is not None and not file.absolute().parent.is_dir():
            raise UserError(f"--{option} {file}: there is no folder {file.absolute().parent}; make it first")


def config_of(overrides: Sequence[str]) -> str:
    """Return the hash of the config that the training would have.

    Raises:
        UserError: It cannot be composed.
    """
    from fulgurite.config.compose import compose
    from fulgurite.runs.provenance import config_hash
    from fulgurite.validation.composition import explain_composition

    try:
        return config_hash(compose(overrides))
    except FulguriteError:
        raise
    except Exception as error:
        explained = explain_composition(error, list(overrides))
        if explained is None:
            raise
        raise explained from error


def examine(asked: argparse.Namespace, place: Place) -> int:
    """Look at everything that was asked for and return the exit code; rank 0 tells what was found.

    Raises:
        FulguriteError: This rank could not come to the others.
    """
    from fulgurite.doctor.cluster.rendezvous import LINGER, Meeting, MissingRanks, Refused
    from fulgurite.doctor.cluster.watchdog import Watchdog

    watch = Watchdog(2 * asked.timeout + 15, EXIT_CRASH, show=place.rank == 0 and sys.stderr.isatty())
    watch.start()
    meeting, linger = Meeting(place, asked.timeout), asked.timeout
    try:
        report = _look(asked, meeting, watch)
        watch.clear()
        if place.rank == 0:
            from fulgurite.doctor.render import write

            write(report, asked)
        return EXIT_FINDING if report.findings else 0
    except FulguriteError as error:
        _tell(error, place)
        linger = LINGER if isinstance(error, MissingRanks) else linger  # who has not come until now will not
        if isinstance(error, UserError) and not isinstance(error, Refused):
            with suppress(Refused):
                meeting.refuse(str(error))
        return EXIT_USER if isinstance(error, UserError) else EXIT_FINDING
    finally:
        watch.begin("leaving")
        meeting.leave(linger)
        watch.end()


def _look(asked: argparse.Namespace, meeting: Meeting, watch: Watchdog) -> Report:
    from fulgurite.doctor.fault_analysis import find_fault
    from fulgurite.doctor.preflight import Preflight, Wanted
    from fulgurite.doctor.speed import Bench, measure_speed
    from fulgurite.runs.provenance import git_state, versions

    git = git_state(project_root())
    told: dict[str, Any] = {
        "versions": versions(),
        "commit": f"{git['commit'][:12]}{'+' if git['dirty'] else ''}" if git else None,
        "config": config_of(asked.overrides),
    }
    preflight = Preflight(meeting, _wanted(asked, Wanted), told, watch)
    report = preflight.look()
    try:
        ranks = preflight.connect(report)
        if ranks is not None:
            preflight.examine(report, ranks)
            if asked.bench:
                bench = Bench(
                    asked.collectives, asked.max_bytes, asked.factor, asked.warmup, asked.calls, asked.seconds,
                    asked.link_bytes, not asked.no_links, asked.least,
                )  # fmt: skip
                if ranks.rank == 0 and ranks.size > 1:
                    _say_how_long(bench)
                measure_speed(bench, ranks, report, watch, asked.timeout)
    except RuntimeError as error:
        find_fault(preflight, report, error)
    finally:
        preflight.close()
    return report


def _say_how_long(bench: Bench) -> None:
    from fulgurite.doctor.bench.collectives import sizes

    number = len(bench.collectives) * len(sizes(bench.max_bytes, bench.factor))
    print(
        f"bench: {number} measurements, each up to {2 * bench.seconds:g} s and on fast links under one; "
        "--collectives, --max-bytes and --seconds make it shorter",
        file=sys.stderr,
        flush=True,
    )


def _wanted(asked: argparse.Namespace, kind: type[Wanted]) -> Wanted:
    return kind(
        asked.folder, asked.backend, asked.interface, asked.timeout, asked.min_free, asked.max_skew, not asked.no_drills
    )


def main(words: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Args:
        words: Of the command line.
    """
    place = Place()
    try:
        asked = read_words(words)
        place = read_place()
        # the doctor says itself what is wrong; these would only add stack traces of C++ to it
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        warnings.simplefilter("ignore")
        return examine(asked, place)
    except FulguriteError as error:
        _tell(error, place)
        return EXIT_USER if isinstance(error, UserError) else EXIT_FINDING


def _tell(error: FulguriteError, place: Place) -> None:
    """Say once on each machine what is wrong: its other ranks know the same."""
    if place.local_rank == 0:
        print(f"error: {error}", file=sys.stderr, flush=True)
