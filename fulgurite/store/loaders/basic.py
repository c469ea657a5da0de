"""Loaders of a store: functions, open files, environment variables, flags; the base of those that read sources."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from fulgurite.core.errors import UserError
from fulgurite.core.redact import mask_override
from fulgurite.sources.formats import parse


class Loader:
    """One ordered part of a config. Subclasses define `load`, and `wait` if the source can change.

    Args:
        name: Unique in its store, for messages and metrics.
        required: Whether the first load fails with it; False leaves it empty until it can be loaded.
        stop_on_failure: Whether a failure, of a reload too, closes the store.
        max_retry: Further attempts of a load that failed.
        retry_delay: Seconds between two attempts.
        poll_seconds: Load every so often and compare; None: the loader is not polled.

    Raises:
        UserError: A number is negative or not finite.

    Attributes:
        is_text: Whether all values are text, which takes the type of the number or boolean that it replaces.
        is_polled: Whether `wait` returns without knowing of a change, so that equal values are no reload.
    """

    is_text = False
    is_polled = True

    def __init__(
        self,
        name: str,
        *,
        required: bool = True,
        stop_on_failure: bool = False,
        max_retry: int = 0,
        retry_delay: float = 1.0,
        poll_seconds: float | None = None,
    ) -> None:
        self.name, self.required, self.stop_on_failure = name, required, stop_on_failure
        self.max_retry, self.retry_delay, self.poll_seconds = max_retry, retry_delay, poll_seconds
        for option in ("max_retry", "retry_delay", "poll_seconds"):
            number = getattr(self, option)
            if number is not None and not 0 <= number <= threading.TIMEOUT_MAX:
                raise UserError(f"{name}: {option}={number} is not a number of 0 or more. Correct it.")
        if poll_seconds == 0:
            raise UserError(f"{name}: poll_seconds=0 polls without a pause. Set a number above 0.")

    @property
    def is_watched(self) -> bool:
        """Whether the source can change while the program runs."""
        return self.poll_seconds is not None

    def load(self) -> Mapping[str, Any]:
        """Return nested values, read anew.

        Raises:
            Exception: The source failed; a `UserError` has a message of one line.
        """
        raise NotImplementedError

    def wait(self, stop: threading.Event) -> bool:
        """Block until the source may have changed, or until `stop` is set; return whether to load it."""
        assert self.poll_seconds is not None
        return not stop.wait(self.poll_seconds)

    def close(self) -> None:
        """Release what is open; called once, when the store closes."""


class FunctionLoader(Loader):
    """Loads what a function returns: defaults, a database, any source of your own.

    Args:
        function: Returns nested values, or is a dictionary of them.
        name: For messages and metrics.
        options: See `Loader`.

    Example:
        >>> FunctionLoader({"optimizer": {"lr": 0.1}}, "defaults")
    """

    def __init__(
        self, function: Callable[[], Mapping[str, Any]] | Mapping[str, Any], name: str = "function", **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._function = function

    def load(self) -> Mapping[str, Any]:
        """Return what the function returns."""
        return self._function if isinstance(self._function, Mapping) else self._function()


class StreamLoader(Loader):
    """Loads an open file or pipe, read once to its end.

    Args:
        stream: Any object with `read`.
        suffix: Format: yaml, json, toml or env.
        name: For messages and metrics.
        options: See `Loader`.

    Example:
        >>> StreamLoader(sys.stdin, "yaml")
    """

    def __init__(self, stream: IO[str] | IO[bytes], suffix: str, name: str = "stream", **options: Any) -> None:
        super().__init__(name, **options)
        self._stream, self._suffix, self._data = stream, suffix, None
        self.is_text = suffix.endswith("env")

    _data: bytes | None

    def load(self) -> Mapping[str, Any]:
        """Return the parsed content; a second load returns it again."""
        if self._data is None:
            text = self._stream.read()
            self._data = text.encode() if isinstance(text, str) else text
        return parse(self._data, f".{self._suffix.lstrip('.')}", self.name)


class EnvironmentLoader(Loader):
    """Loads environment variables; one that is not set gives no key.

    Args:
        prefix: `APP_` loads `APP_OPTIMIZER__LR` as `optimizer.lr`.
        variables: Name of a variable to the dotted key that it sets, beside those with the prefix.
        separator: Between the parts of a key in the name of a variable.
        name: For messages and metrics.
        options: See `Loader`.

    Raises:
        UserError: Neither a prefix nor variables are given.

    Example:
        >>> EnvironmentLoader("APP_", {"WANDB_PROJECT": "logger.project"})
    """

    is_text = True

    def __init__(
        self,
        prefix: str = "",
        variables: Mapping[str, str] | None = None,
        *,
        separator: str = "__",
        name: str = "environment",
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        if not prefix and not variables:
            raise UserError(f"{name}: has no prefix and no variables. Pass one of them.")
        self._prefix, self._variables, self._separator = prefix, dict(variables or {}), separator

    def load(self) -> Mapping[str, Any]:
        """Return the variables that are set."""
        named = {key: os.environ[name] for name, key in self._variables.items() if name in os.environ}
        start = len(self._prefix)
        for name in sorted(os.environ) if self._prefix else ():
            if name.startswith(self._prefix) and len(name) > start and name not in self._variables:
                named.setdefault(name[start:].lower().replace(self._separator.lower(), "."), os.environ[name])
        return named


class FlagLoader(Loader):
    """Loads the flags of a command line: `--optimizer.lr=0.1`, `optimizer.lr=0.1`, and `--debug` for true.

    Args:
        argv: The arguments; None takes those of this process.
        name: For messages and metrics.
        options: See `Loader`.

    Example:
        >>> FlagLoader(["--optimizer.lr=0.1", "--debug"])
    """

    is_text = True

    def __init__(self, argv: Sequence[str] | None = None, *, name: str = "flags", **options: Any) -> None:
        super().__init__(name, **options)
        self._argv = argv

    def load(self) -> Mapping[str, Any]:
        """Return the flags; the last one of a name counts.

        Raises:
            UserError: An argument is not a flag.
        """
        found: dict[str, Any] = {}
        for argument in sys.argv[1:] if self._argv is None else self._argv:
            key, equals, value = argument.removeprefix("--").partition("=")
            if not key.strip() or key.startswith("-") or (not equals and not argument.startswith("--")):
                raise UserError(f"{self.name}: {mask_override(argument)!r} is not --key=value. Write it so.")
            found[key] = value if equals else True
        return found
