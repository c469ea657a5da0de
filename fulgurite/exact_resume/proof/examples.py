"""Compare which examples two uninterrupted runs saw, and how often."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from fulgurite.exact_resume.proof.probe import BATCHES

Row = Mapping[str, Any]  # of one batch: see `Probe`
Facts = dict[tuple[str, str], Any]  # (a part of the batch, what is counted) to its value in one epoch


def diff_examples(exact: Path, control: Path, reseeded: Path) -> dict[str, str]:
    """Return how the epochs of a run with exact resume differ from the epochs of a run without it.

    The order of the data differs by design. A number is compared where two runs without exact resume agree on it
    although their seeds differ: it does not depend on the random numbers.

    Args:
        exact: Folder of an uninterrupted run with exact resume.
        control: The same without exact resume.
        reseeded: A control of another seed.

    Returns:
        The first difference of each kind; empty when the runs saw the same examples equally often.
    """
    ours, theirs, again = (_facts_by_epoch(folder / "probe") for folder in (exact, control, reseeded))
    found: dict[str, str] = {}
    for epoch in sorted(ours.keys() & theirs.keys() & again.keys()):
        for key, expected in theirs[epoch].items():
            if expected == again[epoch].get(key) and expected != ours[epoch].get(key):
                part, kind = key
                place = f", batch{part}" if part else ""
                line = f"epoch {epoch}{place}: {_describe(kind, ours[epoch].get(key), expected)}"
                found.setdefault(kind, line)
    return found


def _facts_by_epoch(probe: Path) -> dict[int, Facts]:
    ranks = sorted(probe.glob(BATCHES.format(rank="*")))
    epochs: defaultdict[int, list[Row]] = defaultdict(list)
    for path in ranks:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            epochs[row["epoch"]].append(row)
    return {epoch: _count(batches, num_ranks=len(ranks)) for epoch, batches in epochs.items()}


def _count(batches: Sequence[Row], num_ranks: int) -> Facts:
    facts: Facts = {}
    for part in dict.fromkeys(part for batch in batches for part in batch["examples"]):
        of_part = [batch["examples"][part] for batch in batches if part in batch["examples"]]
        facts[part, "examples"] = frozenset(example for examples in of_part for example in examples)
        if num_ranks == 1:  # without exact resume, several ranks repeat examples to have equally many
            facts[part, "batch sizes"] = [len(examples) for examples in of_part]
            facts[part, "repeated examples"] = _repeats(example for examples in of_part for example in examples)
            facts[part, "repeated batches"] = _repeats(tuple(examples) for examples in of_part)
    if num_ranks == 1:
        facts["", "batches"] = len(batches)
        facts["", "equal tensors"] = sorted(_equal_tensors(batches))
    return facts


def _equal_tensors(batches: Sequence[Row]) -> Iterator[str]:
    """Yield pairs of tensors that are equal in each of several batches: two loaders have the same order."""
    tensors = [batch["tensors"] for batch in batches]
    for one, two in combinations(tensors[0], 2):
        if len({batch.get(one) for batch in tensors}) > 1 and all(
            batch.get(one) == batch.get(two) for batch in tensors
        ):
            yield f"{one} = {two}"


def _repeats(values: Iterable[Any]) -> list[tuple[int, int]]:
    """Return pairs of a number of times and the number of values that occur so often."""
    return sorted(Counter(Counter(values).values()).items())


def _describe(kind: str, ours: Any, expected: Any) -> str:
    mine, theirs = ("none" if value is None else _DESCRIBE[kind](value) for value in (ours, expected))
    if mine == theirs and kind == "examples":
        mine = f"{mine}, {len(ours - expected)} of them others"
    return f"{mine} with exact resume, {theirs} without it"


def _describe_repeats(counts: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{number} seen {times} x" for times, number in counts)


_DESCRIBE: dict[str, Callable[[Any], str]] = {
    "batches": str,
    "equal tensors": lambda pairs: ", ".join(pairs) or "none",
    "batch sizes": lambda sizes: ", ".join(str(size) for size in dict.fromkeys(sizes)),
    "repeated examples": _describe_repeats,
    "repeated batches": _describe_repeats,
    "examples": lambda examples: str(len(examples)),
}
