"""Downloads that are whole, checked and go on after a cut.

What is slow to import (the network) is imported by the function that needs it, so that a door which only answers
`--help` does not pay for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fulgurite.core.errors import UserError
from fulgurite.core.files import BLOCK, file_lock, sha256_of, sync_folder
from fulgurite.core.rank_logging import RankedLogger

if TYPE_CHECKING:
    from http.client import HTTPMessage, HTTPResponse
    from urllib.request import OpenerDirector, Request

SOCKET_TIMEOUT = 30.0  # seconds without a byte before a mirror is given up
TRIES = 5  # requests to one mirror, as long as each brings more bytes than the one before
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

log = RankedLogger(__name__)


def download(
    urls: str | Sequence[str], target: str | Path, sha256: str | None = None, *, timeout: float = SOCKET_TIMEOUT
) -> Path:
    """Bring one file from the first mirror that gives it whole, under a lock, and return its path.

    Only https is spoken, and no redirect leads away from it; plain http is spoken with this machine alone. Bytes gather
    in `<target>.part`, which a later call or another mirror continues, but only where `sha256` can tell that the pieces
    belong together. A target that is there already, and has the right sum, is left as it is.

    Args:
        urls: Mirrors in the order they are tried.
        target: Where the file goes; its folder is made when missing.
        sha256: Hex digest the file must have; None takes what a mirror gives.
        timeout: Seconds without a byte before a mirror is given up.

    Raises:
        UserError: No mirror gave the file (each is named with its reason), or the target's folder cannot be written.
    """
    urls, target = [urls] if isinstance(urls, str) else urls, Path(target)
    part = target.with_name(target.name + ".part")
    sha256 = sha256.lower() if sha256 else None
    reasons = []
    try:
        with file_lock(target.with_name(f".{target.name}.lock")):
            if target.is_file() and sha256 in {None, sha256_of(target)}:
                return target
            for url in urls:
                try:
                    _fetch(url, part, sha256, timeout)
                except _MirrorError as failure:
                    reasons.append(f"{_shown(url)} ({failure})")
                    continue
                part.replace(target)
                sync_folder(target.parent)
                return target
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror or error}); free or choose another folder"
        ) from error
    needs = f", with sha256 {sha256}" if sha256 else ""
    raise UserError(
        f"{target.name}: no mirror gave it: {'; '.join(reasons)}; get it by other means and put it at {target}{needs}"
    )


class _MirrorError(Exception):
    """One mirror cannot give the file; the message says why."""


def _fetch(url: str, part: Path, sha256: str | None, timeout: float) -> None:
    """Fill `part` from one mirror until it is whole and has the right sum, going on after a cut."""
    _check_url(url)
    if sha256 is None:
        part.unlink(missing_ok=True)
    elif part.exists() and sha256_of(part) == sha256:
        return
    log.info("downloading %s", _shown(url))
    for attempt in range(TRIES):
        had = _size(part)
        try:
            start = _receive(url, part, had, timeout)
        except _InterruptedError as cut:
            if sha256 is None or _size(part) <= had or attempt == TRIES - 1:
                raise
            log.info("%s; going on from byte %d", cut, _size(part))
            continue
        if sha256 is None or (found := sha256_of(part)) == sha256:
            return
        part.unlink()
        if start == 0:  # else the piece that was there before may be the wrong one, so this mirror gets a clean try
            raise _MirrorError(f"wrong sha256 {found[:12]}..., expected {sha256[:12]}...")
    raise _MirrorError(f"not whole after {TRIES} tries")


class _InterruptedError(_MirrorError):
    """The connection ended before the file did; what came is kept."""


def _receive(url: str, part: Path, start: int, timeout: float) -> int:
    """Append what the mirror sends from byte `start` on, and return the byte it really began at."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request

    headers = {"User-Agent": "fulgurite"} | ({"Range": f"bytes={start}-"} if start else {})
    request = Request(url, headers=headers)  # noqa: S310 - _check_url has judged the scheme
    try:
        response: HTTPResponse = _opener(url).open(request, timeout=timeout)
    except HTTPError as error:
        if error.code == 416 and start:  # the piece is longer than the file: it is of another one
            part.unlink()
            return _receive(url, part, 0, timeout)
        raise _MirrorError(f"{error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _MirrorError(_reason(error, timeout)) from error
    with response:
        if response.status != 206:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _MirrorError(f"sent another range than was asked for, {response.headers.get('Content-Range')!r}")
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, timeout)
    return start


def _copy(response: HTTPResponse, file: IO[bytes], timeout: float) -> None:
    """Write a response's body; network errors become `_InterruptedError`, disk errors stay OSError."""
    from http.client import HTTPException

    expected, received = response.length, 0
    while received != expected:
        try:
            # read1 gives what has arrived: on a cut nothing that came is lost
            block = response.read1(BLOCK)
        except (OSError, HTTPException) as error:
            raise _InterruptedError(f"{_reason(error, timeout)} after {received} bytes") from error
        if not block:
            break
        file.write(block)
        received += len(block)
    file.flush()
    os.fsync(file.fileno())
    if expected is not None and received != expected:
        raise _InterruptedError(f"cut off after {received} of {expected} bytes")


def _opener(url: str) -> OpenerDirector:
    """Return what opens `url`: keeps redirects secure, and asks no proxy for this machine's own addresses."""
    from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

    class SecureRedirects(HTTPRedirectHandler):
        def redirect_request(
            self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
        ) -> Request | None:
            if urlsplit(newurl).scheme != "https" and urlsplit(req.full_url).scheme == "https":
                raise _MirrorError(f"redirects from https to {_shown(newurl)}")
            _check_url(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    handlers: list[Any] = [SecureRedirects()]
    if urlsplit(url).hostname in LOOPBACK:
        handlers.append(ProxyHandler({}))
    return build_opener(*handlers)


def is_secure(url: str) -> bool:
    """Tell whether a URL is one that `download` speaks: https, or plain http with this machine alone."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if not is_secure(url):
        raise _MirrorError(f"{_shown(url)} is not https")
    if "@" in parts.netloc:
        raise _MirrorError("a user or password in a URL is not used")


def _shown(url: str) -> str:
    """Return a URL as messages may show it: without user, password and query, where secrets travel."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception, timeout: float) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps the error that says something
    if isinstance(cause, TimeoutError):
        return f"no byte for {timeout:g} s"
    return " ".join(str(getattr(cause, "strerror", None) or cause or type(cause).__name__).split())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
