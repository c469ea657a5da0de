"""Serve HTTP on loopback with the faults that each test configures."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar


@dataclass
class Reply:
    """The response for one path.

    Args:
        body: The complete content.
        status: A status other than 200 is sent without a body.
        cut: Close the connection after this many bytes of the body; None sends all.
        delay: Seconds before the headers are sent.
        pause: Seconds between two blocks of 1,000 bytes.
        location: Redirect target.
        ranges: Whether Range requests are honoured.
        headers: Further headers of a 200.
    """

    body: bytes = b""
    status: int = 200
    cut: int | None = None
    delay: float = 0.0
    pause: float = 0.0
    location: str | None = None
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a file with key and certificate of 127.0.0.1, and one with the certificate alone, for who is to trust it.

    Needs `openssl`.
    """
    pem, crt = folder / "server.pem", folder / "server.crt"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", pem, "-out", crt], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + crt.read_bytes())
    return pem, crt


Server = TypeVar("Server", bound="LoopbackServer")


class LoopbackServer:
    """Answers on a port of 127.0.0.1 while the `with` block lasts, or until it is killed.

    Args:
        handler: Answers one request.
        port: 0 takes a free port.
        certificate: A file with key and certificate; then the server speaks https.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0, certificate: Path | None = None) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self: Server) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Refuse every connection from now on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class FileServer(LoopbackServer):
    """Serve `replies` by path on a free port of 127.0.0.1 while the `with` block lasts.

    Args:
        replies: What each path answers; other paths are 404. May be changed while the server runs.
        certificate: A file with key and certificate; then the server speaks https.

    Attributes:
        requests: `(path, Range header or None)` of each request, in order.
    """

    def __init__(self, replies: dict[str, Reply], certificate: Path | None = None) -> None:
        self.replies = replies
        self.requests: list[tuple[str, str | None]] = []
        super().__init__(self._handler(), certificate=certificate)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}/"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.requests.append((self.path, asked))
                with contextlib.suppress(OSError):  # the client may have gone away, some tests want it to
                    _answer(self, outer.replies.get(self.path, Reply(status=404)), asked)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
                pass

        return Handler


def _answer(handler: BaseHTTPRequestHandler, reply: Reply, asked: str | None) -> None:
    time.sleep(reply.delay)
    if reply.location:
        handler.send_response(302)
        handler.send_header("Location", reply.location)
        handler.end_headers()
        return
    if reply.status != 200:
        handler.send_error(reply.status)
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and reply.ranges else 0
    if start >= len(reply.body) and start:
        handler.send_error(416)
        return
    body = reply.body[start:]
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}")
    handler.send_header("Content-Length", str(len(body)))
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    sent = body[: reply.cut]
    step = 1000 if reply.pause else max(len(sent), 1)
    for at in range(0, len(sent), step):
        handler.wfile.write(sent[at : at + step])
        time.sleep(reply.pause)


class PostServer(LoopbackServer):
    """Keep every JSON body that is posted, while the `with` block lasts; may be killed and started again.

    Args:
        port: Where to listen on 127.0.0.1; 0 takes a free one.
        delay: Seconds before each answer.
        refuse: Bodies with this word in them are answered with 400 and not kept.

    Attributes:
        bodies: What was posted, in order.
    """

    def __init__(self, port: int = 0, *, delay: float = 0.0, refuse: str = "nothing of this kind") -> None:
        self.bodies: list[Any] = []
        self.delay, self.refuse = delay, refuse
        super().__init__(self._handler(), port)
        self.port = self._server.server_port

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                time.sleep(outer.delay)
                if outer.refuse in text:
                    self.send_error(400)
                    return
                outer.bodies.append(json.loads(text))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
                pass

        return Handler


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Listen on a port of 127.0.0.1 that takes every connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield int(server.getsockname()[1])


def closed_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
