"""Redirects of a server that speaks https: none leads to http, and no other server gets what is secret."""

from __future__ import annotations

import shutil
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fulgurite.sources.reader import SourceError, open_reader
from tests.support.http_server import make_certificate
from tests.support.servers.doubles import Double, reply

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
CANARY = "canary-of-redirects"
OPTIONS = "#max_retry=0&timeout=20"
ADDRESSES = {
    "http": f"https://me:{CANARY}@127.0.0.1:{{port}}/conf{OPTIONS}",
    "consul": f"consul://127.0.0.1:{{port}}/conf{OPTIONS}&tls=true",
    "etcd": f"etcd://127.0.0.1:{{port}}/conf{OPTIONS}&tls=true",
    "vault": f"vault://127.0.0.1:{{port}}/secret{OPTIONS}",
}


class Redirecting(Double):
    """Sends every request, with its body, to another server."""

    target = ""

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        reply(handler, b"", 307, Location=f"{self.target}{handler.path}")


class Silent(Double):
    """Has no secret, and keeps what it was sent."""

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        reply(handler, b'{"errors": []}', 404)


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a certificate that each client trusts, with a secret for each."""
    pem, crt = make_certificate(tmp_path)
    for name in ("SSL_CERT_FILE", "ETCDCTL_CACERT", "VAULT_CACERT"):
        monkeypatch.setenv(name, str(crt))
    for name in ("CONSUL_HTTP_TOKEN", "VAULT_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("ETCDCTL_USER", f"root:{CANARY}")
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    return pem


def refusal(kind: str, secure: Double) -> str:
    """Return why a file of a server cannot be read."""
    with pytest.raises(SourceError) as caught:
        open_reader(ADDRESSES[kind].format(port=secure.port)).read("a.yaml")
    return str(caught.value)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_https_that_redirects_to_http_is_one_line_and_the_other_is_not_asked(kind: str, pem: Path) -> None:
    with Silent() as plain, Redirecting(certificate=pem) as secure:
        secure.target = plain.url
        line = refusal(kind, secure)
        assert "redirects from https to http" in line
        assert line.startswith(f"{ADDRESSES[kind].partition(':')[0]}://127.0.0.1:{secure.port}/")
        assert "\n" not in line
        assert CANARY not in line
        assert len(secure.requests) == 1
        assert CANARY.encode() in secure.seen[0] or kind == "http"  # there in base64
        assert plain.requests == []


@pytest.mark.parametrize("kind", ["http", "consul", "vault"])
def test_another_server_with_https_gets_no_token(kind: str, pem: Path) -> None:
    with Silent(certificate=pem) as other, Redirecting(certificate=pem) as secure:
        secure.target = f"https://127.0.0.1:{other.port}"
        reader = open_reader(ADDRESSES[kind].format(port=secure.port))
        with suppress(SourceError):  # Vault has to answer
            assert reader.read("a.yaml") is None
        assert other.requests
        sent = b"".join(other.seen).lower()
        assert [name for name in (CANARY.encode(), b"authorization", b"token") if name in sent] == []
