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

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulgurite.core.cli_parser import CommandParser, list_of, print_error
from fulgurite.core.errors import EXIT_CRASH, FulguriteError, UserError
from fulgurite.core.project import find_project
from fulgurite.doctor.bench.bandwidth import BUS_FACTOR
from fulgurite.doctor.bench.thresholds import parse_bytes, read_thresholds
from fulgurite.doctor.cluster.options import Options
from fulgurite.doctor.cluster.placement import Placement, detect_placement

if TYPE_CHECKING:
    from fulgurite.doctor.cluster.rendezvous import Rendezvous
    from fulgurite.doctor.cluster.watchdog import Watchdog
    from fulgurite.doctor.report import Report

EXIT_FINDING = 1
STDOUT = Path("-")
MINIMUM = {"timeout": 1, "seconds": 0.01, "factor": 2, "warmup": 1, "calls": 1, "min_free": 0, "max_skew": 0}


def parse_args(argv: Sequence[str]) -> Options:
    """Return the validated options and overrides."""
    names = list(BUS_FACTOR)
    parser = CommandParser("doctor", __doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key=value", help="Hydra overrides of the training command")
    add("--backend", help="gloo, nccl, ... (NCCL on GPUs, else gloo)")
    add("--interface", help="comma-separated interfaces, instead of GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME")
    add("--timeout", type=float, default=60.0, help="seconds that ranks wait for each other (60)")
    add("--folder", type=Path, help="folder that all ranks must see (logs/ of the project, else the current one)")
    add("--min-free", type=float, default=1.0, help="GiB that the folder must have free (1)")
    add("--max-skew", type=float, default=1.0, help="largest clock offset in seconds (1)")
    add("--no-drills", action="store_true", help="inject no faults")
    add("--bench", action="store_true", help="measure the speed")
    of_names = f"comma-separated, of {', '.join(names)} (all)"
    add("--collectives", type=list_of("--collectives", names), default=names, help=of_names)
    add("--max-bytes", type=partial(parse_bytes, key="--max-bytes"), default="64MiB", help="largest message (64MiB)")
    add("--factor", type=int, default=4, help="ratio of successive message sizes (4)")
    add("--warmup", type=int, default=5, help="warm-up calls for each size (5)")
    add("--calls", type=int, default=20, help="measured calls for each size (20)")
    add("--seconds", type=float, default=10.0, help="time limit for each size; at least 3 calls are measured (10)")
    parse_link_bytes = partial(parse_bytes, key="--link-bytes")
    add("--link-bytes", type=parse_link_bytes, default="4MiB", help="message between two ranks (4MiB)")
    add("--no-links", action="store_true", help="skip the links between pairs of ranks")
    minimum = "minimum bus bandwidth in GB/s by collective and size, e.g. 'all_reduce: {1MiB: 0.5}'"
    add("--threshold", type=read_thresholds, help=f"YAML file with the {minimum}, and by link, e.g. 'links: 0.8'")
    add("--json", type=Path, nargs="?", const=STDOUT, metavar="FILE", help="write JSON to FILE or to standard output")
    add("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")
    add("--plot", type=Path, metavar="FILE", help="plot time and bandwidth to FILE: .png or .svg")
    given = parser.parse(argv)
    if given.folder is None:
        root = find_project()
        given.folder = root / "logs" if root is not None else Path.cwd()
    args = Options(**vars(given))
    _validate(args)
    return args


def _validate(args: Options) -> None:
    for option, minimum in MINIMUM.items():
        value = getattr(args, option)
        if not minimum <= value < float("inf"):
            raise UserError(f"--{option.replace('_', '-')}={value:g}: out of range. Pass {minimum:g} or more.")
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
    """Return the hash of the config that training composes."""
    from fulgurite.runs.provenance import config_hash
    from fulgurite.validation.composition import compose_explained

    return config_hash(compose_explained(overrides))


def run_checks(args: Options, placement: Placement) -> int:
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
        return print_error(error) if placement.local_rank == 0 else error.exit_code
    finally:
        watchdog.start_step("closing")
        rendezvous.close(close_timeout)
        watchdog.stop()


def _make_report(args: Options, rendezvous: Rendezvous, watchdog: Watchdog) -> Report:
    from fulgurite.doctor.preflight import Preflight
    from fulgurite.doctor.speed import measure_speed
    from fulgurite.runs.provenance import git_state, versions

    root = find_project()
    git = git_state(root or Path.cwd())
    provenance: dict[str, Any] = {
        "versions": versions(),
        "commit": f"{git['commit'][:12]}{'+' if git['dirty'] else ''}" if git else None,
        # without a project there is no config to compare; overrides need one
        "config": training_config_hash(args.overrides) if root is not None or args.overrides else None,
    }
    preflight = Preflight(rendezvous, args, provenance, watchdog)
    report = preflight.compare()
    try:
        ranks = preflight.connect(report)
        if ranks is not None:
            preflight.check_group(report, ranks)
            if args.bench:
                measure_speed(args, ranks, report, watchdog)
    except RuntimeError as error:
        preflight.diagnose_broken_group(report, error)
    finally:
        preflight.close()
    return report


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    placement = Placement()
    try:
        args = parse_args(argv)
        placement = detect_placement()
        # the doctor reports errors itself; torch would add C++ stack traces
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        warnings.simplefilter("ignore")
        return run_checks(args, placement)
    except FulguriteError as error:
        return print_error(error) if placement.local_rank == 0 else error.exit_code
