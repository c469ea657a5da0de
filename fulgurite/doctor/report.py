"""The report of the cluster checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from fulgurite.doctor.bench.collectives import Measurement
from fulgurite.doctor.bench.links import Link, SlowComponent
from fulgurite.doctor.cluster.rank_info import FINDING, FINE, Check, RankInfo


@dataclass
class Report:
    """The results, equal on all ranks.

    Attributes:
        checks: In the order of the steps.
        slow: Links and ranks below the others.
    """

    backend: str
    facts: list[RankInfo]
    checks: list[Check] = field(default_factory=list)
    measured: list[Measurement] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    slow: list[SlowComponent] = field(default_factory=list)

    @property
    def findings(self) -> list[Check]:
        """The checks that set exit code 1."""
        return [check for check in self.checks if check.state == FINDING]

    def add(self, name: str, problems: list[str], fine: str = "") -> bool:
        """Add a finding for each problem or one fine check; return whether it is fine."""
        self.checks += [Check(name, FINDING, problem) for problem in problems] or [Check(name, FINE, fine)]
        return not problems


def describe_machines(report: Report) -> str:
    """Return the number of ranks and machines, e.g. `2 ranks on 1 machine`."""
    counts = {"rank": len(report.facts), "machine": len({one.machine for one in report.facts})}
    return " on ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items())
