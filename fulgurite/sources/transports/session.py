"""A session of requests that keeps to the options of a reader, for the clients of etcd and Vault."""

from __future__ import annotations

import io
import re
import time
from typing import Any

from fulgurite.sources.reader import ReadOptions, need_library

_OVERHEAD = 4096  # bytes of JSON around a value
_BLOCK = 1 << 16


class TooLargeError(Exception):
    """A response has more bytes than the options allow."""


def bounded_session(options: ReadOptions, place: str) -> Any:
    """Return a `requests.Session` with a timeout for each request as a whole and a bound on each response.

    Raises:
        SourceError: requests is not installed.
    """
    requests = need_library("requests", "sources", place)

    class BoundedSession(requests.Session):  # type: ignore[misc, name-defined]  # imported at its first use
        def send(self, request: Any, **kwargs: Any) -> Any:
            end = time.monotonic() + options.timeout
            is_stream = kwargs.pop("stream", False)
            kwargs["timeout"] = kwargs.get("timeout") or options.timeout
            response = super().send(request, stream=True, **kwargs)
            if is_stream or response.is_redirect:
                return response
            parts, size = [], 0
            for block in response.iter_content(_BLOCK):
                parts.append(block)
                size += len(block)
                if size > options.max_bytes * 4 // 3 + _OVERHEAD:  # base64
                    response.close()
                    raise TooLargeError
                if time.monotonic() > end:
                    response.close()
                    raise requests.exceptions.ReadTimeout
            return _with_content(response, b"".join(parts))

        def get_redirect_target(self, resp: Any) -> Any:
            target = super().get_redirect_target(resp)
            if target and target.startswith("http:") and resp.url.startswith("https:"):
                resp.close()
                raise requests.exceptions.InvalidURL("redirects from https to http")
            return target

        def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
            if verify is None and self.verify is not True:
                verify = self.verify  # REQUESTS_CA_BUNDLE would win over a certificate that is named for this server
            return super().merge_environment_settings(url, proxies, stream, verify, cert)

        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            super().rebuild_auth(prepared_request, response)
            if self.should_strip_auth(response.request.url, prepared_request.url):  # another host
                prepared_request.headers.pop("X-Vault-Token", None)

    return BoundedSession()


def _with_content(response: Any, content: bytes) -> Any:
    from requests import Response

    whole = Response()
    for name in ("status_code", "headers", "url", "reason", "request", "encoding", "history", "cookies", "elapsed"):
        setattr(whole, name, getattr(response, name))
    whole.raw = io.BytesIO(content)
    return whole


def reason_of(error: BaseException, timeout: float) -> str:
    """Return why a request failed, on one line, without the layers of objects that requests prints."""
    cause: Any = error
    while (inner := getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)) is not None:
        if not isinstance(inner, BaseException):
            break
        cause = inner
    text = " ".join(str(cause.args[-1] if getattr(cause, "args", None) else cause).split())
    if "timed out" in text or "timed out" in str(error) or "Timeout" in type(error).__name__:
        return f"did not answer within {timeout:g} s"
    plain = re.sub(r"\[Errno -?\d+\] ", "", text.rpartition(": ")[2])
    return f"failed ({plain or type(error).__name__})"
