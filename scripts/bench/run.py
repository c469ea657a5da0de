"""Measure speed and memory against the project's thresholds; `make bench` runs all benchmarks.

One run measures all alternatives in turns and compares ratios of the same round, because a slow or busy machine slows
them alike. The report is written to logs/bench/. The exit code is 1 when a threshold is missed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

# a script's own folder is first in sys.path: replace it by the root
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fulgurite.core.rank_logging import filter_library_logs
from scripts.bench.measure import ROOT, Row
from scripts.bench.report import describe_machine, print_report, save_report

BENCHES = (
    "startup", "epochs", "long", "exact", "memory", "checkpoints", "sweeps", "ranks", "store", "language", "live",
)  # fmt: skip
MIN_REPEATS = 5


def run_benchmark(bench: str, args: argparse.Namespace, folder: Path) -> list[Row]:
    """Run one benchmark.

    Args:
        bench: One of `BENCHES`.
        args: The command line.
        folder: For temporary files.
    """
    if bench == "startup":
        from scripts.bench.startup import command_rows, first_step_rows

        return [*command_rows(args.repeats), *first_step_rows(args.repeats, folder)]
    if bench == "sweeps":
        from scripts.bench.sweeps import sweep_rows

        return sweep_rows(args.repeats, folder, quick=args.quick)
    if bench == "memory":
        from scripts.bench.memory import memory_rows

        return memory_rows(folder, *((20_000, 40_000) if args.quick else (60_000, 2_000_000)))
    if bench == "ranks":
        from scripts.bench.ranks import rank_rows

        return rank_rows(30, args.repeats, folder, args.clock)
    if bench in {"store", "live"}:
        from scripts.bench.live import live_rows
        from scripts.bench.store import store_rows

        steps, reads = (200, 2_000) if args.quick else (2_000, 100_000)
        is_live = bench == "live"
        return (
            live_rows(args.repeats, folder, steps, args.clock) if is_live else store_rows(args.repeats, folder, reads)
        )

    import torch

    from scripts.bench.checkpoints import checkpoint_rows
    from scripts.bench.epochs import epoch_rows, long_run_rows
    from scripts.bench.exact_resume import exact_rows
    from scripts.bench.images import FULL, QUICK
    from scripts.bench.language_models import language_rows

    torch.set_num_threads(args.threads)
    if bench != "checkpoints":
        filter_library_logs(ignore_warnings=True)
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quick, size = args.quick, QUICK if args.quick else FULL
    return {
        "checkpoints": lambda: checkpoint_rows(folder, 2_000_000 if quick else 200_000_000, args.repeats),
        "epochs": lambda: epoch_rows(size, args.repeats, folder, args.clock),
        "exact": lambda: exact_rows(size, args.repeats, folder),
        "language": lambda: language_rows(10 if quick else 60, args.repeats, folder),
        "long": lambda: long_run_rows(size, 20 if quick else 1_000, folder, args.clock),
    }[bench]()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"any of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--repeats", type=int, help=f"measured rounds, {MIN_REPEATS} or more")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="number of torch threads (default: 1; several wait for each other on a busy machine)",
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="of epochs and steps; cpu counts this process only, for a busy machine; needs --threads 1",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=ROOT / "logs" / "bench", help="folder of the report")
    parser.add_argument("--quick", action="store_true", help="few images and one round, without thresholds")
    args = parser.parse_args(argv)
    if unknown := [bench for bench in args.benches if bench not in BENCHES]:
        parser.error(f"{unknown[0]}: not a benchmark. Choose from {', '.join(BENCHES)}")
    args.benches = args.benches or list(BENCHES)
    args.repeats = args.repeats or (1 if args.quick else MIN_REPEATS)
    if args.repeats < MIN_REPEATS and not args.quick:
        parser.error(f"--repeats {args.repeats}: too few for a median. Pass {MIN_REPEATS} or more.")
    if args.clock == "cpu" and args.threads != 1:
        parser.error("--clock=cpu: counts the seconds of all threads. Pass --threads 1.")
    return args


def exit_code(rows: Sequence[Row]) -> int:
    """Return 1 when a threshold is missed, else 0."""
    return int(any(row.kept is False for row in rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the selected benchmarks, write the report, and return the exit code."""
    args = parse_args(argv)
    rows: list[Row] = []
    with TemporaryDirectory(prefix="fulgurite-bench-") as folder:
        for bench in args.benches:
            bench_folder = Path(folder) / bench
            bench_folder.mkdir()
            print(f"measuring: {bench}", flush=True)
            rows += run_benchmark(bench, args, bench_folder)
    if args.quick:
        rows = [replace(row, bar=None) for row in rows]
    print_report(rows)
    settings = {"repeats": args.repeats, "threads": args.threads, "clock": args.clock, "quick": args.quick}
    print(f"report  {save_report(args.output, rows, describe_machine(settings=settings))}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
