"""A group has broken: the ranks tell one another over the store what they see, and name what is at fault."""

from __future__ import annotations

import re
from typing import Any

from fulgurite.doctor.cluster.reachability import describe_unreachable, down, unreached
from fulgurite.doctor.cluster.rendezvous import MissingRanks
from fulgurite.doctor.preflight import Preflight
from fulgurite.doctor.report import Report

PATIENCE = 2.0  # seconds for one connection
_CPP = re.compile(r"\[[^\]]*\.cc:\d+\] ")  # where in its own source gloo was


def find_fault(preflight: Preflight, report: Report, error: BaseException) -> None:
    """Find out why a group has broken.

    Args:
        preflight: That made the group.
        report: Gets what is found.
        error: Of this rank.

    Raises:
        Absent: The store cannot be reached any more either.
    """
    watch, place, own, timeout = preflight.watch, preflight.place, preflight.own, preflight.wanted.timeout
    step, gone = watch.step, down(own)
    said = _CPP.sub("", str(error).splitlines()[0]).partition(". This is typically")[0]
    lost = f"{step}: {own.name} lost the other ranks ({said})" + "".join(f", {name} is down" for name in gone)
    # a store that cannot be reached any more answers neither yes nor no
    watch.begin(f"{lost}; asking at {place.address}:{place.port}, where they meet", timeout + 10)
    try:
        preflight.meeting.tell("broken", {"down": gone, "unreached": unreached(own, report.facts, PATIENCE)})
        words, silent = preflight.meeting.collect("broken")
    except RuntimeError as unheard:
        raise MissingRanks([0], f"{lost}, and {place.address}:{place.port} too, where they meet") from unheard
    report.add("group", [f"{step}: the ranks lost one another ({said})"])
    report.add("at fault", _seen(report, words, silent, timeout), "every rank answers and reaches every other again")


def _seen(report: Report, words: list[Any], silent: list[int], timeout: float) -> list[str]:
    """Return a line for each thing that is wrong."""
    lines = [
        f"{', '.join(one['down'])} is down on {facts.name}"
        for facts, one in zip(report.facts, words, strict=True)
        if one is not None and one["down"]
    ]
    lines += [
        f"{one.name} (pid {one.pid}) did not answer within {timeout:g} s; was it killed or stopped, is it cut off?"
        for one in map(report.facts.__getitem__, silent)
    ]
    for one in filter(None, words):
        lines += describe_unreachable([tuple(pair) for pair in one["unreached"]], report.facts)
    return lines
