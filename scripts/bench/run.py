"""Measure the promises about speed and size; `make bench` runs all of it.

Everything is measured side by side in one run, in turns, and judged by ratios of the same round: a machine that is slow
or busy slows all alike. The report goes to logs/bench/. Ends with 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

# started as a file, the path begins with this folder: put the root there instead
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fulgurite.core.rank_logging import filter_library_logs
from scripts.bench.measure import ROOT, Row
from scripts.bench.report import facts, save, show

BENCHES = ("startup", "epochs", "long", "exact", "memory", "checkpoints", "sweeps", "ranks")
LEAST_REPEATS = 5


def measure(bench: str, args: argparse.Namespace, folder: Path) -> list[Row]:
    """Run one benchmark.

    Args:
        bench: One of `BENCHES`.
        args: The command line.
        folder: For what it writes; taken away afterwards.
    """
    if bench == "startup":
        from scripts.bench.startup import answer_rows, first_step_rows

        return [*answer_rows(args.repeats), *first_step_rows(args.repeats, folder)]
    if bench == "sweeps":
        from scripts.bench.sweeps import sweep_rows

        return sweep_rows(args.repeats, folder, quick=args.quick)
    if bench == "memory":
        from scripts.bench.memory import memory_rows

        return memory_rows(folder, *((20_000, 40_000) if args.quick else (60_000, 2_000_000)))
    if bench == "ranks":
        from scripts.bench.ranks import rank_rows

        return rank_rows(30, args.repeats, folder, args.clock)

    import torch

    from scripts.bench.epochs import epoch_rows, long_run_rows
    from scripts.bench.images import FULL, QUICK

    torch.set_num_threads(args.threads)
    if bench == "checkpoints":
        from scripts.bench.checkpoints import checkpoint_rows

        return checkpoint_rows(folder, 2_000_000 if args.quick else 200_000_000, args.repeats)
    filter_library_logs(ignore_warnings=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    size = QUICK if args.quick else FULL
    if bench == "epochs":
        return epoch_rows(size, args.repeats, folder, args.clock)
    if bench == "exact":
        from scripts.bench.exact import exact_rows

        return exact_rows(size, args.repeats, folder)
    return long_run_rows(size, 20 if args.quick else 1_000, folder, args.clock)


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"which, of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--repeats", type=int, help=f"rounds that count, {LEAST_REPEATS} or more")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads that torch computes with (default: 1; more of them wait for each other on a busy machine)",
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="of epochs and steps; cpu counts this process alone, for a machine that is busy, with --threads 1",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=ROOT / "logs" / "bench", help="folder of the report")
    parser.add_argument(
        "--quick", action="store_true", help="few images, one round: shows that it runs, judges nothing"
    )
    args = parser.parse_args(words)
    if unknown := [bench for bench in args.benches if bench not in BENCHES]:
        parser.error(f"{unknown[0]}: no such benchmark; choose from {', '.join(BENCHES)}")
    args.benches = args.benches or list(BENCHES)
    args.repeats = args.repeats or (1 if args.quick else LEAST_REPEATS)
    if args.repeats < LEAST_REPEATS and not args.quick:
        parser.error(
            f"--repeats {args.repeats}: a median of fewer than {LEAST_REPEATS} says little; use {LEAST_REPEATS} or more"
        )
    if args.clock == "cpu" and args.threads != 1:
        parser.error("--clock cpu adds up the seconds of all threads; use it with --threads 1")
    return args


def exit_code(rows: Sequence[Row]) -> int:
    """Return 1 when a promise is not kept, else 0."""
    return int(any(row.kept is False for row in rows))


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for, report, and return the exit code."""
    args = read_arguments(words)
    rows: list[Row] = []
    with TemporaryDirectory(prefix="fulgurite-bench-") as folder:
        for bench in args.benches:
            place = Path(folder) / bench
            place.mkdir()
            print(f"measuring: {bench}", flush=True)
            rows += measure(bench, args, place)
    if args.quick:
        rows = [replace(row, bar=None) for row in rows]
    show(rows)
    settings = {"repeats": args.repeats, "threads": args.threads, "clock": args.clock, "quick": args.quick}
    print(f"report  {save(args.output, rows, facts(settings=settings))}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
