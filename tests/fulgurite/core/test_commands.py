"""The commands of `python -m fulgurite` report errors as an entry point does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import pytest

from fulgurite.__main__ import COMMANDS
from fulgurite.core.errors import ConfigError
from fulgurite.core.redact import register_secret


@pytest.mark.parametrize("command", COMMANDS)
def test_each_finding_has_its_own_line_without_secrets(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_secret("canary-of-commands")

    def refuse(argv: Sequence[str]) -> None:
        raise ConfigError(["a=1: is wrong. Set 2.", "b=canary-of-commands: is wrong. Set 3."])

    module = import_module(COMMANDS[command][0])
    monkeypatch.setattr(module, "parse_args", refuse)
    assert module.main([]) == 2
    assert capsys.readouterr().err == "error: a=1: is wrong. Set 2.\nerror: b=***: is wrong. Set 3.\n"
