"""The report of the cluster checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from fulgurite.doctor.bench.collectives import Measured
from fulgurite.doctor.bench.links import Link, Slow
from fulgurite.doctor.cluster.facts import (
    FINDING,
    FINE,
    Check,
    RankInfo,
    spans_machines,
)


@dataclass
class Report:
    """What was found; the same on all ranks.

    Attributes:
        backend: Of the group.
        facts: Of each rank.
        checks: In the order they were made.
        measured: Collectives.
        links: Pairs of ranks.
        slow: Links and ranks that fall short.
    """

    backend: str
    facts: list[RankInfo]
    checks: list[Check] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    slow: list[Slow] = field(default_factory=list)

    @property
    def findings(self) -> list[Check]:
        """The checks that make the doctor end with 1."""
        return [check for check in self.checks if check.state == FINDING]

    def add(self, name: str, problems: list[str], fine: str = "") -> bool:
        """Add a check, a finding for each problem; return whether there was none."""
        self.checks += [Check(name, FINDING, problem) for problem in problems] or [Check(name, FINE, fine)]
        return not problems


def machines(report: Report) -> str:
    """Return how the ranks are spread, in words."""
    number = len({one.machine for one in report.facts})
    ranks = f"{len(report.facts)} rank{'s' if len(report.facts) > 1 else ''}"
    return f"{ranks} on {number} machines" if spans_machines(report.facts) else f"{ranks} on 1 machine"
