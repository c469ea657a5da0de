"""Check the ranks of a training run before it starts.

    python -m fulgurite doctor
    torchrun --nproc-per-node 2 -m fulgurite doctor --bench experiment=example
    srun python -m fulgurite doctor --bench --threshold thresholds.yaml --json doctor.json --plot doctor.png

The doctor checks ranks, machines, addresses and devices. It compares versions, code and config of all ranks, and checks
network interfaces, a shared folder, clocks and free disk space. It runs every collective with exact values, and injects
a late rank and a mismatched shape. --bench measures collectives by message size, each link between two ranks and each
processor, and reports the slow ones. Arguments without -- are Hydra overrides of the training command: all ranks must
compose the same config. Every rank exits with 0, with 1 when there is a finding, and with 2 on invalid input.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulgurite.core.cli_parser import CommandParser, list_of
from fulgurite.core.errors import EXIT_CRASH, EXIT_USER, FulguriteError, UserError
from fulgurite.core.project import project_root
from fulgurite.doctor.bench.bandwidth import BUS_FACTOR
from fulgurite.doctor.bench.thresholds import parse_bytes, read_thresholds
from fulgurite.doctor.cluster.placement import Placement, detect_placement

if TYPE_CHECKING:
    from fulgurite.doctor.cluster.rendezvous import Rendezvous
    from fulgurite.doctor.cluster.watchdog import Watchdog
    from fulgurite.doctor.report import Report
    from fulgurite.doctor.speed import BenchOptions

EXIT_FINDING = 1
STDOUT = Path("-")
MINIMUM = {"timeout": 1, "seconds": 0.01, "factor": 2, "warmup": 1, "calls": 1, "min_free": 0, "max_skew": 0}


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the validated options and overrides.

    Raises:
        UserError: An argument is invalid.
    """
    parser = CommandParser("doctor", __doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key=value", help="Hydra overrides of the training command")
    add("--backend", help="gloo, nccl, ... (NCCL on GPUs, else gloo)")
    add("--interface", help="comma-separated interfaces, instead of GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME")
    add("--timeout", type=float, default=60.0, help="seconds that ranks wait for each other (60)")
    add("--folder", type=Path, default=project_root() / "logs", help="folder that all ranks must see (logs/)")
    add("--min-free", type=float, default=1.0, help="GiB that the folder must have free (1)")
    add("--max-skew", type=float, default=1.0, help="largest clock offset in seconds (1)")
    add("--no-drills", action="store_true", help="inject no faults")
    add("--bench", action="store_true", help="measure the speed")
    add(
        "--collectives",
        type=list_of("--collectives", list(BUS_FACTOR)),
        default=list(BUS_FACTOR),
        help=f"comma-separated, of {', '.join(BUS_FACTOR)} (all)",
    )
    add("--max-bytes", default="64MiB", help="largest message (64MiB)")
    add("--factor", type=int, default=4, help="ratio of successive message sizes (4)")
    add("--warmup", type=int, default=5, help="warm-up calls for each size (5)")
    add("--calls", type=int, default=20, help="measured calls for each size (20)")
    add("--seconds", type=float, default=10.0, help="time limit for each size; at least 3 calls are measured (10)")
    add("--link-bytes", default="4MiB", help="message between two ranks (4MiB)")
    add("--no-links", action="store_true", help="skip the links between pairs of ranks")
    add(
        "--threshold",
        type=Path,
        help="YAML file with the minimum bus bandwidth in GB/s by collective and size, "
        "e.g. 'all_reduce: {1MiB: 0.5}', and by link, e.g. 'links: 0.8'",
    )
    add("--json", type=Path, nargs="?", const=STDOUT, metavar="FILE", help="write JSON to FILE or to standard output")
    add("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")
    add("--plot", type=Path, metavar="FILE", help="plot time and bandwidth to FILE: .png or .svg")
    args = parser.parse(argv)
    _validate(args)
    return args


def _validate(args: argparse.Namespace) -> None:
    for option, minimum in MINIMUM.items():
        value = getattr(args, option)
        if not minimum <= value < float("inf"):
            raise UserError(f"--{option.replace('_', '-')}={value:g}: out of range. Pass {minimum:g} or more.")
    args.max_bytes = parse_bytes(args.max_bytes, "--max-bytes")
    args.link_bytes = parse_bytes(args.link_bytes, "--link-bytes")
    args.threshold = read_thresholds(args.threshold) if args.threshold else None
    for option in ("threshold", "plot"):
        if getattr(args, option) and not args.bench:
            raise UserError(f"--{option}: needs the measurements of --bench. Add --bench.")
    if args.plot and args.plot.suffix not in {".png", ".svg"}:
        raise UserError(f"--plot={args.plot}: not an image file. Name a .png or .svg file.")
    for option in ("json", "markdown", "plot"):
        file = getattr(args, option)
        if file is not None and not (parent := file.absolute().parent).is_dir():
            raise UserError(f"--{option}={file}: the folder {parent} does not exist. Create it first.")
    if args.json and "=" in args.json.name and args.json.suffix != ".json":
        raise UserError(f"--json={args.json}: looks like an override. Put overrides before --json.")


def training_config_hash(overrides: Sequence[str]) -> str:
    """Return the hash of the config that training composes.

    Raises:
        UserError: Hydra cannot compose it.
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


def run_checks(args: argparse.Namespace, placement: Placement) -> int:
    """Run all checks and return the exit code; rank 0 writes the report.

    Raises:
        FulguriteError: This rank could not join the others.
    """
    from fulgurite.doctor.cluster.rendezvous import CLOSE_SECONDS, MissingRanks, PeerInputError, Rendezvous
    from fulgurite.doctor.cluster.watchdog import Watchdog

    is_leader = placement.rank == 0
    watchdog = Watchdog(2 * args.timeout + 15, EXIT_CRASH, show_steps=is_leader and sys.stderr.isatty())
    watchdog.start()
    rendezvous, close_timeout = Rendezvous(placement, args.timeout), args.timeout
    try:
        report = _make_report(args, rendezvous, watchdog)
        watchdog.clear_line()
        if is_leader:
            from fulgurite.doctor.render import write_report

            write_report(report, args)
        return EXIT_FINDING if report.findings else 0
    except FulguriteError as error:
        if isinstance(error, MissingRanks):
            close_timeout = CLOSE_SECONDS  # a rank that is still missing will not close its store either
        if isinstance(error, UserError) and not isinstance(error, PeerInputError):
            with suppress(PeerInputError):
                rendezvous.reject(str(error))
        return _print_error(error, placement)
    finally:
        watchdog.start_step("closing")
        rendezvous.close(close_timeout)
        watchdog.stop()


def _make_report(args: argparse.Namespace, rendezvous: Rendezvous, watchdog: Watchdog) -> Report:
    from fulgurite.doctor.fault_analysis import diagnose_broken_group
    from fulgurite.doctor.preflight import Preflight, PreflightOptions
    from fulgurite.doctor.speed import BenchOptions, measure_speed
    from fulgurite.runs.provenance import git_state, versions

    git = git_state(project_root())
    provenance: dict[str, Any] = {
        "versions": versions(),
        "commit": f"{git['commit'][:12]}{'+' if git['dirty'] else ''}" if git else None,
        "config": training_config_hash(args.overrides),
    }
    options = PreflightOptions(
        args.folder, args.backend, args.interface, args.timeout, args.min_free, args.max_skew, not args.no_drills
    )
    preflight = Preflight(rendezvous, options, provenance, watchdog)
    report = preflight.compare()
    try:
        ranks = preflight.connect(report)
        if ranks is not None:
            preflight.check_group(report, ranks)
            if args.bench:
                bench = BenchOptions(
                    args.collectives, args.max_bytes, args.factor, args.warmup, args.calls, args.seconds,
                    args.link_bytes, not args.no_links, args.threshold,
                )  # fmt: skip
                if ranks.rank == 0 and ranks.size > 1:
                    _announce_bench(bench)
                measure_speed(bench, ranks, report, watchdog, args.timeout)
    except RuntimeError as error:
        diagnose_broken_group(preflight, report, error)
    finally:
        preflight.close()
    return report


def _announce_bench(bench: BenchOptions) -> None:
    from fulgurite.doctor.bench.collectives import message_sizes

    count = len(bench.collectives) * len(message_sizes(bench.max_bytes, bench.factor))
    print(
        f"bench: {count} measurements, at most {2 * bench.seconds:g} s each, under 1 s on fast links. "
        "Shorten it with --collectives, --max-bytes and --seconds.",
        file=sys.stderr,
        flush=True,
    )


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Args:
        argv: The arguments after `doctor`.
    """
    placement = Placement()
    try:
        args = parse_args(argv)
        placement = detect_placement()
        # the doctor reports errors itself; torch would add C++ stack traces
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        warnings.simplefilter("ignore")
        return run_checks(args, placement)
    except FulguriteError as error:
        return _print_error(error, placement)


def _print_error(error: FulguriteError, placement: Placement) -> int:
    """Print an error once per machine, where its ranks share it, and return the exit code."""
    if placement.local_rank == 0:
        print(f"error: {error}", file=sys.stderr, flush=True)
    return EXIT_USER if isinstance(error, UserError) else EXIT_FINDING
