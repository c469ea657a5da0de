"""Shapes with state that only code reaches: helper modules, classes, closures, workers."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

ATTRIBUTES = "state in attributes"


def _data(kind: str, text: str, *, workers: int = 0, **more: Any) -> Shape:
    data = use("reached.ReachedData", kind=kind, num_workers=workers)
    return Shape(text, ATTRIBUTES, data=data, **more)


def _in_workers(kind: str, text: str, line: str) -> Shape:
    return _data(kind, f"{text}, in workers", workers=1, expect="named", line=line)


REACHED = [
    _data("collate object", "collate_fn: a counter"),
    _data("collate closure", "collate_fn: a counter in a closure"),
    _data("collate helper", "collate_fn: a generator of a helper module"),
    _data("collate helper", "collate_fn: a generator of a helper module, in workers", workers=2),
    _data("set class", "data set: a dict of its class"),
    _data("set dict", "data set: a dict of a helper module"),
    _data("set variable", "data set: a variable of a helper module"),
    _data("sampler", "sampler: a counter of its class", expect="named", line="Numbered.passes"),
    _data("init", "worker_init_fn that gives the data set a generator", workers=2),
    Shape(
        "dataset.level = current_epoch, with persistent workers",
        ATTRIBUTES,
        data=use("reached.ReachedData", kind="set level", num_workers=1, persistent=True),
        callbacks={"level": use("reached.SetLevel")},
        expect="named",
        line="Changing.level",
    ),
    _data(
        "set level",
        "dataset.level += 1 after each batch, in workers",
        workers=1,
        callbacks={"level": use("reached.AddLevel")},
    ),
    _data("set opened", "data set: a file that each worker opens", workers=1),
    _data("many", "data set: 80 generators in a ConcatDataset, in workers", workers=2, kill_after=15),
    Shape("model: a generator of a helper module", ATTRIBUTES, model=use("reached.Mixes")),
    _in_workers("set history", "data set: a list", "Changing.history"),
    _in_workers("set transform", "data set: a transform that counts", "Calls.calls"),
    _in_workers("set class", "data set: a dict of its class", "Changing.by_class"),
    _in_workers("set dict", "data set: a dict of a helper module", "helpers.SEEN"),
    _in_workers("set variable", "data set: a variable of a helper module", "helpers.calls"),
    _in_workers("collate object", "collate_fn: a counter", "CountingCollate.step"),
    _in_workers("collate closure", "collate_fn: a counter in a closure", "collate.step"),
]
