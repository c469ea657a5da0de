"""Imported once by the server of warm processes: composing and checking a config fills the caches of both."""

from __future__ import annotations

from tests.support.compose import findings
from tests.support.memo import remember_parsed_configs
from tests.support.shapes.shape import Shape
from tests.support.shapes.table import SHAPES

assert SHAPES
remember_parsed_configs()
assert findings(*Shape("first", "").arguments()) == []
