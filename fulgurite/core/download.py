"""Download files: verify the checksum, resume interrupted transfers, try mirrors in turn.

The slow network imports are inside functions, so that a command that only prints its help does not pay for them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from fulgurite.core.errors import UserError
from fulgurite.core.files import BLOCK, file_lock, sha256_of, sync_folder
from fulgurite.core.rank_logging import RankedLogger

if TYPE_CHECKING:
    from http.client import HTTPMessage, HTTPResponse
    from urllib.request import OpenerDirector, Request

SOCKET_TIMEOUT_SECONDS = 30.0
MAX_REQUESTS = 5  # to one mirror, as long as each brings more bytes
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

log = RankedLogger(__name__)


def download(
    urls: str | Sequence[str], target: str | Path, sha256: str | None = None, *, timeout: float = SOCKET_TIMEOUT_SECONDS
) -> Path:
    """Download a file from the first mirror that delivers it intact, under a lock.

    Only https is used, also after redirects; plain http is allowed to this machine. Bytes are collected in
    `<target>.part`. A later call or another mirror continues that file only when `sha256` can verify the result. An
    existing target with the right checksum is kept.

    Args:
        urls: Mirrors, in order.
        target: The file to create and return; its folder is created too.
        sha256: Expected hex digest; None accepts any content.
        timeout: Seconds without a byte before the next mirror is tried.

    Raises:
        UserError: Every mirror failed (each is named with its reason), or the target's folder is not writable.
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
            f"{target}: not writable ({error.strerror or error}). Free space, or choose another folder."
        ) from error
    needs = f" (sha256 {sha256})" if sha256 else ""
    raise UserError(f"{target.name}: every mirror failed: {'; '.join(reasons)}. Put the file at {target}{needs}.")


class _MirrorError(Exception):
    """A mirror failed; the message is the reason."""


def _fetch(url: str, part: Path, sha256: str | None, timeout: float) -> None:
    """Download `part` from one mirror until its checksum is right, resuming interrupted transfers."""
    _check_url(url)
    if sha256 is None:
        part.unlink(missing_ok=True)
    elif part.exists() and sha256_of(part) == sha256:
        return
    log.info("downloading %s", _shown(url))
    for attempt in range(MAX_REQUESTS):
        had = _size(part)
        try:
            start = _receive(url, part, had, timeout)
        except _InterruptedError as error:
            if sha256 is None or _size(part) <= had or attempt == MAX_REQUESTS - 1:
                raise
            log.info("%s. Resuming from byte %d", error, _size(part))
            continue
        if sha256 is None or (found := sha256_of(part)) == sha256:
            return
        part.unlink()
        if start == 0:  # otherwise the earlier part may be the wrong one: retry from the first byte
            raise _MirrorError(f"wrong sha256 {found[:12]}..., expected {sha256[:12]}...")
    raise _MirrorError(f"incomplete after {MAX_REQUESTS} requests")


class _InterruptedError(_MirrorError):
    """The connection was interrupted; the received bytes are kept."""


def _receive(url: str, part: Path, start: int, timeout: float) -> int:
    """Append the mirror's response from byte `start` on, and return the byte at which it starts."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request

    headers = {"User-Agent": "fulgurite"} | ({"Range": f"bytes={start}-"} if start else {})
    request = Request(url, headers=headers)  # noqa: S310 - _check_url has checked the scheme
    try:
        response: HTTPResponse = _opener(url).open(request, timeout=timeout)
    except HTTPError as error:
        if error.code == 416 and start:  # the part is longer than the file: it belongs to another file
            part.unlink()
            return _receive(url, part, 0, timeout)
        raise _MirrorError(f"{error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _MirrorError(_reason(error, timeout)) from error
    with response:
        if response.status != 206:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _MirrorError(f"sent another range than requested, {response.headers.get('Content-Range')!r}")
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, timeout)
    return start


def _copy(response: HTTPResponse, file: IO[bytes], timeout: float) -> None:
    """Write a response's body; network errors become `_InterruptedError`, disk errors stay OSError."""
    from http.client import HTTPException

    expected, received = response.length, 0
    while received != expected:
        try:
            block = response.read1(BLOCK)  # the bytes that have arrived: an interruption loses none
        except (OSError, HTTPException) as error:
            raise _InterruptedError(f"{_reason(error, timeout)} after {received} bytes") from error
        if not block:
            break
        file.write(block)
        received += len(block)
    file.flush()
    os.fsync(file.fileno())
    if expected is not None and received != expected:
        raise _InterruptedError(f"interrupted after {received} of {expected} bytes")


def _opener(url: str) -> OpenerDirector:
    """Return an opener that keeps redirects secure and uses no proxy for this machine's addresses."""
    from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

    class SecureRedirects(HTTPRedirectHandler):
        def redirect_request(
            self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
        ) -> Request | None:
            if urlsplit(newurl).scheme != "https" and urlsplit(req.full_url).scheme == "https":
                raise _MirrorError(f"redirects from https to {_shown(newurl)}")
            _check_url(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return build_opener(SecureRedirects(), *([ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []))


def is_secure(url: str) -> bool:
    """Return whether `download` accepts a URL: https, or plain http to this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if not is_secure(url):
        raise _MirrorError(f"{_shown(url)} is not https")
    if "@" in parts.netloc:
        raise _MirrorError("the URL contains a user or password")


def _shown(url: str) -> str:
    """Return a URL for messages: without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception, timeout: float) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps the informative error
    if isinstance(cause, TimeoutError):
        return f"no byte for {timeout:g} s"
    return " ".join(str(getattr(cause, "strerror", None) or cause or type(cause).__name__).split())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
