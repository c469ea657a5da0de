"""Read from an HTTP server. The network modules of the standard library are imported at the first request."""

from __future__ import annotations

import re
import time
from html import unescape
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from fulgurite.core.formatting import parse_count
from fulgurite.core.redact import register_secret
from fulgurite.sources.reader import BaseReader, Fetched, ReadOptions, SourceError, sha256_text, without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message
    from http.client import HTTPMessage, HTTPResponse
    from urllib.request import OpenerDirector, Request

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
NOT_MODIFIED, UNAUTHORIZED, FORBIDDEN, GONE = 304, 401, 403, frozenset({404, 410})
_LINK = re.compile(rb"<a\s[^>]*?href\s*=\s*[\"']?([^\"'\s>]+)", re.IGNORECASE)
_BLOCK = 1 << 16


class HttpReader(BaseReader):
    """Reader of a web server; `list` reads the links in the page that the server makes of a folder.

    A user and a password may stand in the address, or in `~/.netrc`.
    """

    def __init__(self, address: str, options: ReadOptions) -> None:
        super().__init__(address, options)
        parts = urlsplit(address)
        self._query = parts.query
        self._url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self._login = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
        if self._login:
            register_secret(self._login[1] or self._login[0])

    def _read(self, path: str) -> Fetched | None:
        found = self.get(path)
        return None if found is None else Fetched(found[0], _version(found[0], found[1]))

    def _list(self, path: str) -> list[str]:
        found = self.get(f"{path}/", place=path, is_folder=True)
        if found is None or "html" not in found[1].get("content-type", ""):
            return []
        base = urlsplit(self._full_url(f"{path}/")).path
        names = set()
        for link in _LINK.findall(found[0]):
            target = urlsplit(urljoin(base, unescape(link.decode("utf-8", "replace")))).path
            name = unquote(target.removeprefix(base))
            if target.startswith(base) and name and "/" not in name.rstrip("/"):
                names.add(name)
        return list(names)

    def _differs(self, path: str, version: str | None) -> bool:
        if version is None or not version.startswith(('"', "W/")):
            return super()._differs(path, version)
        headers = {"If-None-Match": version}
        found = self._retried(lambda: self.get(self._clean(path), headers))
        return found is None or (found[1].get("x-status") != str(NOT_MODIFIED) and _version(*found) != version)

    def _full_url(self, path: str, query: str = "") -> str:
        url = f"{self._url.rstrip('/')}/{quote(path.lstrip('/'))}" if path else self._url
        query = query or self._query
        return f"{url}?{query}" if query else url

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        query: str = "",
        place: str | None = None,
        seconds: float = 0.0,
        limit: int = 0,
        is_folder: bool = False,
        keep_absent: bool = False,
    ) -> tuple[bytes, Mapping[str, str]] | None:
        """Return the body and the headers of one GET; None where the server has nothing at this path.

        Args:
            path: Below the address.
            headers: To send.
            query: Replaces that of the address.
            place: The key for messages, if it is not the path.
            seconds: That the server may wait before it answers.
            limit: Largest body in bytes, if it is not `max_bytes`.
            is_folder: 401 and 403 are "nothing" too: many servers refuse to list a folder.
            keep_absent: Return the headers of a 404, with their status as `x-status`.

        Raises:
            SourceError: The request failed.
        """
        from http.client import HTTPException
        from urllib.error import HTTPError
        from urllib.request import Request

        timeout, place = self.options.timeout + seconds, path if place is None else place
        try:
            request = Request(self._full_url(path, query), headers={**self._authorization(), **(headers or {})})  # noqa: S310
            end = time.monotonic() + timeout
            with self._opener(place).open(request, timeout=timeout) as response:
                return self._body(place, response, end, limit or self.options.max_bytes), _lower(response.headers)
        except HTTPError as error:
            with error:
                if error.code == NOT_MODIFIED or (keep_absent and error.code in GONE):
                    return b"", {**_lower(error.headers), "x-status": str(error.code)}
            if error.code in GONE or (is_folder and error.code in {UNAUTHORIZED, FORBIDDEN}):
                return None
            raise self._refused(place, error.code) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self.failure(place, self._reason(error)) from error

    def _body(self, path: str, response: HTTPResponse, end: float, limit: int) -> bytes:
        parts, size = [], 0
        announced = parse_count(response.headers.get("Content-Length", ""))
        if announced is not None and announced > limit:
            raise self.too_large(path)
        while block := response.read1(_BLOCK):
            parts.append(block)
            size += len(block)
            if size > limit:
                raise self.too_large(path)
            if time.monotonic() > end:
                raise TimeoutError
        if announced is not None and size != announced:
            raise self.failure(path, f"ended after {size:,} of {announced:,} bytes")
        return b"".join(parts)

    def _authorization(self) -> dict[str, str]:
        login = self._login or _netrc_login(urlsplit(self._url).hostname or "")
        if not login:
            return {}
        from base64 import b64encode

        return {"Authorization": f"Basic {b64encode(':'.join(login).encode()).decode()}"}

    def _refused(self, path: str, code: int) -> SourceError:
        if code in {UNAUTHORIZED, FORBIDDEN}:
            return SourceError(self.place(path), f"refused the request ({code})", "Correct the token or the password")
        if 300 <= code < 400:
            problem = "redirects in a circle, or to an address that is not http or https"
            return SourceError(self.place(path), problem, "Correct it")
        is_transient = code >= 500 or code in {408, 425, 429}
        return SourceError(self.place(path), f"answered {code}", "Correct the server", is_transient=is_transient)

    def _reason(self, error: Exception) -> str:
        cause = getattr(error, "reason", error)  # urllib wraps the informative error
        if isinstance(cause, TimeoutError):
            return f"did not answer within {self.options.timeout:g} s"
        text = " ".join(str(getattr(cause, "strerror", None) or cause or type(cause).__name__).split())
        return f"failed ({text})"

    def _opener(self, path: str) -> OpenerDirector:
        """Return an opener that keeps redirects secure and uses no proxy for this machine's addresses."""
        from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

        refuse, own = self._redirect_problem, urlsplit(self._url)

        class SecureRedirects(HTTPRedirectHandler):
            def redirect_request(
                self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
            ) -> Request | None:
                try:
                    refuse(path, req.full_url, newurl)
                except SourceError:
                    fp.close()
                    raise
                new = super().redirect_request(req, fp, code, msg, headers, newurl)
                if new is not None and urlsplit(newurl).netloc != own.netloc:
                    for name in [*new.headers]:
                        if name.lower() in {"authorization", "x-consul-token", "x-vault-token"}:
                            new.remove_header(name)
                return new

        return build_opener(SecureRedirects(), *([ProxyHandler({})] if own.hostname in LOOPBACK else []))

    def _redirect_problem(self, path: str, old: str, new: str) -> None:
        scheme = urlsplit(new).scheme
        if scheme == "http" and urlsplit(old).scheme == "https":
            problem = f"redirects from https to {without_credentials(new)}"
            raise SourceError(self.place(path), problem, "Name an https address that does not")


def _version(data: bytes, headers: Mapping[str, str]) -> str:
    return headers.get("etag") or sha256_text(data)


def _lower(headers: Message) -> dict[str, str]:
    """Return headers by their names in lower case: servers write `Content-type` and `content-type` as well."""
    return {name.lower(): text for name, text in headers.items()}


def _netrc_login(host: str) -> tuple[str, str] | None:
    from netrc import NetrcParseError, netrc

    try:
        entry = netrc().authenticators(host)
    except (OSError, NetrcParseError):
        return None
    return (entry[0] or "", entry[2] or "") if entry else None
