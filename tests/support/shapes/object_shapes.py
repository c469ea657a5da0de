"""Shapes of state in objects that a model, a data module or a callback holds."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

OBJECTS = "objects in attributes"


def _model(text: str, name: str, **arguments: Any) -> Shape:
    return Shape(text, OBJECTS, model=use(f"objects.{name}", **arguments))


def _holds(text: str, kind: str, **more: Any) -> Shape:
    return Shape(text, OBJECTS, model=use("objects.Holds", kind=kind), **more)


def _changes(text: str, kind: str, *, line: str) -> Shape:
    return Shape(text, OBJECTS, model=use("objects.Restructures", kind=kind), expect="named", line=line)


OBJECT_SHAPES = [
    _model("model: a teacher in a list", "ListedTeacher"),
    _model("model: a teacher behind object.__setattr__", "HiddenTeacher"),
    _model("model: an optimizer in an attribute", "OwnOptimizer"),
    _model("model: a scheduler in an attribute", "OwnScheduler"),
    _model("model: a DataLoader in an attribute", "KeepsLoader"),
    _model("model: a data set that it fills", "Replay"),
    _holds("model: a list of 20,000 numbers", "long list"),
    _holds("model: an object with __slots__", "slots"),
    _holds("model: an object that holds objects and a generator", "environment"),
    _holds("model: a queue.Queue", "queue"),
    _holds("model: a weakref.WeakKeyDictionary", "weak dict"),
    _holds("model: an array.array", "array"),
    _holds("model: a bytearray", "bytearray"),
    _holds("model: a multiprocessing.Value", "shared value"),
    _holds("model: a sparse tensor", "sparse"),
    _holds("model: a function that counts in its closure", "closure"),
    _holds("model: a functools.partial that counts in its argument", "partial"),
    _holds("model: the method random of a random.Random", "bound method"),
    _holds("model: metrics in a dict of lists", "metrics"),
    _holds("model: a forward hook that counts", "forward hook"),
    _holds("model: a class attribute of a submodule", "class of a submodule"),
    _holds("model: a tensor in two attributes, and a view of it", "alias"),
    _holds("model: a tensor of 6 MB of which a few elements change", "large"),
    _model("model: a buffer with persistent=False, in place", "UnsavedBuffer", in_place=True),
    _model("model: a buffer with persistent=False, made anew", "UnsavedBuffer", in_place=False),
    _model("model: a layer made in configure_model", "LateLayer"),
    _model("model: an attribute that is deleted", "DropsAttribute"),
    _changes("on_train_epoch_end that replaces an activation", "activation", line="model.net.2"),
    _changes("on_train_epoch_end that registers a forward hook", "hook", line="model.net.0 hooks"),
    _changes("on_train_epoch_end that registers a hook of a weight", "weight hook", line="model.net.0 hooks"),
    _changes("on_train_epoch_end that ties two weights", "tie", line="twin.weight"),
    Shape("data module: a counter in hparams", OBJECTS, callbacks={"reads": use("objects.ReadsHparams")}),
]
