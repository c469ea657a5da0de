"""Read secrets of Vault or OpenBao, KV versions 1 and 2, by hvac; renew the token before it expires."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import register_secret
from fulgurite.sources.reader import BaseReader, Fetched, ReadOptions, SourceError, need_library, sha256_text
from fulgurite.sources.transports.session import TooLargeError, bounded_session, reason_of

PORT = 8200
RENEW_AT = 2 / 3  # of the time that a token is valid
T = TypeVar("T")

log = RankedLogger(__name__)


class VaultReader(BaseReader):
    """Reader of the secrets of one server: `vault://host:port/mount/path`. The data is the secret as a JSON dictionary.

    The address of the server, without which `vault:///mount/path` asks `VAULT_ADDR`, is https unless that says http.
    The token comes from `VAULT_TOKEN` or `~/.vault-token`, the CA from `VAULT_CACERT`, the namespace from
    `VAULT_NAMESPACE`, as Vault's own command line has it.
    """

    def __init__(self, address: str, options: ReadOptions) -> None:
        super().__init__(address, options)
        parts = urlsplit(address)
        given = os.environ.get("VAULT_ADDR", "")
        host = parts.netloc.rpartition("@")[2]
        self._url = given if host in {"", urlsplit(given).netloc} else f"https://{parts.hostname}:{parts.port or PORT}"
        self.name = f"vault://{host or urlsplit(given).netloc}/{parts.path.strip('/')}"
        self._root = parts.path.strip("/")
        self._token = unquote(parts.password or "")
        self._renewal: threading.Thread | None = None
        self._lock = threading.Lock()
        self._mounts: dict[str, str] = {}  # mount -> version of KV

    @cached_property
    def _client(self) -> Any:
        if not self._url:
            raise SourceError(self.name, "has no server", "Set VAULT_ADDR=https://<host>:8200")
        hvac = need_library("hvac", "sources", self.name)
        session = bounded_session(self.options, self.name)
        session.verify = os.environ.get("VAULT_CACERT") or True
        client = hvac.Client(
            url=self._url,
            token=self._token or None,
            session=session,
            timeout=self.options.timeout,
            namespace=os.environ.get("VAULT_NAMESPACE"),
        )
        if not client.token:
            raise SourceError(self.name, "has no token", "Set VAULT_TOKEN, or log in with `vault login`")
        register_secret(client.token)
        return client

    def _read(self, path: str) -> Fetched | None:
        full = "/".join(part for part in (self._root, path) if part)

        def read() -> Fetched | None:
            mount, version = self._mount_of(full)
            name = full.removeprefix(mount).strip("/")
            answer = self._client.read(f"{mount}data/{name}" if version == "2" else f"{mount}{name}")
            if answer is None:
                return None
            content = answer["data"]["data"] if version == "2" else answer["data"]
            if content is None:  # deleted
                return None
            data = json.dumps(content, sort_keys=True).encode()
            return Fetched(data, str(answer["data"]["metadata"]["version"]) if version == "2" else sha256_text(data))

        return self._guarded(path, read)

    def _mount_of(self, path: str) -> tuple[str, str]:
        """Return the mount of a path with a slash at its end, and its version of KV, as Vault's command line asks."""
        for mount, version in self._mounts.items():
            if f"{path}/".startswith(mount):
                return mount, version
        answer = self._client.read(f"sys/internal/ui/mounts/{path}")["data"]
        mount, version = str(answer["path"]), str((answer.get("options") or {}).get("version", "1"))
        self._mounts[mount] = version
        self._renew_in_background()
        return mount, version

    def _renew_in_background(self) -> None:
        """Renew a token that expires, after two thirds of its time, for as long as the reader is open."""
        with self._lock:
            if self._renewal is not None:
                return
            found = self._client.auth.token.lookup_self()["data"]
            if not found.get("renewable") or not found.get("ttl"):
                self._renewal = threading.current_thread()  # nothing to renew
                return
            self._renewal = threading.Thread(target=self._renew, args=(float(found["ttl"]),), daemon=True)
            self._renewal.start()

    def _renew(self, seconds: float) -> None:
        while not self._closed.wait(max(seconds * RENEW_AT, 0.2)):
            renewed = self._renewed_for()
            if renewed is None and seconds < 1:
                return
            seconds = renewed or seconds / 2

    def _renewed_for(self) -> float | None:
        """Renew the token, and return the seconds that it is valid now; None with a warning if that failed."""
        try:
            return float(self._client.auth.token.renew_self()["auth"]["lease_duration"])
        except Exception as error:  # noqa: BLE001 - whatever failed, the token is used until it expires
            log.warning("%s: the token cannot be renewed (%s).", self.name, " ".join(str(error).split()))
            return None

    def _guarded(self, path: str, request: Callable[[], T | None]) -> T | None:
        """Return what a request returns; its errors name the source and the key."""
        client = self._client
        from hvac import exceptions

        place = self.place(path)
        try:
            return request()
        except exceptions.InvalidPath:
            return None
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            problem = "refused the token, which is wrong, has expired or lacks the right to read this"
            raise SourceError(place, problem, "Set VAULT_TOKEN to a valid one") from error
        except TooLargeError as error:
            raise self.too_large(path) from error
        except exceptions.VaultError as error:
            text = " ".join(str(error).split())
            is_transient = isinstance(
                error, (exceptions.VaultDown, exceptions.InternalServerError, exceptions.BadGateway)
            )
            raise SourceError(place, f"failed ({text})", "Correct it", is_transient=is_transient) from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if hasattr(error, "response"):  # of requests
                raise self.failure(path, reason_of(error, self.options.timeout)) from error
            raise SourceError(place, "answered what is not an answer of Vault", f"Correct {client.url}") from error
        except OSError as error:  # of requests
            raise self.failure(
                path, reason_of(error, self.options.timeout), "Start it, or correct VAULT_ADDR"
            ) from error
