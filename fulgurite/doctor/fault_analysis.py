"""Find out over the store why a process group broke."""

from __future__ import annotations

import re
from typing import Any

from fulgurite.doctor.cluster.reachability import describe_unreachable, find_unreachable, interfaces_down
from fulgurite.doctor.cluster.rendezvous import MissingRanks
from fulgurite.doctor.preflight import Preflight
from fulgurite.doctor.report import Report

CONNECT_SECONDS = 2.0
_CPP_LOCATION = re.compile(r"\[[^\]]*\.cc:\d+\] ")  # source line in gloo's messages


def diagnose_broken_group(preflight: Preflight, report: Report, error: BaseException) -> None:
    """Add the cause of a broken group, or raise when the store is unreachable too."""
    watchdog, placement, own = preflight.watchdog, preflight.placement, preflight.own
    step, down, timeout = watchdog.step, interfaces_down(own), preflight.options.timeout
    reason = _CPP_LOCATION.sub("", str(error).splitlines()[0]).partition(". This is typically")[0]
    lost = f"{step}: {own.name} lost the other ranks ({reason})" + "".join(f", {name} is down" for name in down)
    store = f"the store at {placement.address}:{placement.port}"
    # an unreachable store blocks the call
    watchdog.start_step(f"{lost}; waiting for {store}", timeout + 10)
    try:
        unreachable = find_unreachable(own, report.facts, CONNECT_SECONDS)
        preflight.rendezvous.publish("broken", {"down": down, "unreachable": unreachable})
        answers, missing = preflight.rendezvous.gather_available("broken")
    except RuntimeError as store_error:
        raise MissingRanks(f"{lost}, and {store} is unreachable") from store_error
    report.add("group", [f"{step}: the ranks lost their connections ({reason})"])
    lines = _describe_failures(report, answers, missing, timeout)
    report.add("at fault", lines, "every rank answers and reaches every other rank again")


def _describe_failures(report: Report, answers: list[Any], missing: list[int], timeout: float) -> list[str]:
    lines = [
        f"{', '.join(answer['down'])} is down on {one.name}"
        for one, answer in zip(report.facts, answers, strict=True)
        if answer is not None and answer["down"]
    ]
    remedy = "Check whether it was killed, or its network."
    silent = [report.facts[rank] for rank in missing]
    lines += [f"{one.name} (pid {one.pid}) did not answer within {timeout:g} s. {remedy}" for one in silent]
    for answer in filter(None, answers):
        lines += describe_unreachable([tuple(pair) for pair in answer["unreachable"]], report.facts)
    return lines
