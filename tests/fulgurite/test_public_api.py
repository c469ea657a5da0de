"""The public names: each has a docstring with an example, and importing the library is light."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import fulgurite
from tests.support.project import ROOT

PACKAGES = [name for name in fulgurite.__all__ if isinstance(getattr(fulgurite, name), ModuleType)]
OBJECTS = [name for name in fulgurite.__all__ if name not in PACKAGES]


@pytest.mark.parametrize("name", OBJECTS)
def test_a_public_name_has_a_docstring_with_an_example(name: str) -> None:
    found = getattr(fulgurite, name)
    documented = found if found.__doc__ and ">>>" in found.__doc__ else sys.modules[found.__module__]
    assert inspect.getdoc(found)
    assert ">>>" in (documented.__doc__ or ""), f"fulgurite.{name}: write an example"


def test_the_public_api_is_some_twenty_names() -> None:
    assert len(fulgurite.__all__) <= 24
    assert set(fulgurite.__all__) <= set(dir(fulgurite))
    with pytest.raises(AttributeError, match="has no attribute 'trane'"):
        _ = fulgurite.trane


@pytest.mark.parametrize("module", ["fulgurite", *(f"fulgurite.{name}" for name in PACKAGES if name != "errors")])
def test_importing_it_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "lightning", "hydra", "omegaconf", "rich"}
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
