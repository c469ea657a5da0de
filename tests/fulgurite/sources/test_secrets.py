"""`${secret:...}` reads the environment, files and Vault, and shows nothing of what it read."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.redact import hide_secrets, known_secrets, mask_config, register_config, saved_config
from fulgurite.sources import secrets
from fulgurite.sources.reader import ReadOptions, SourceError, open_reader
from fulgurite.sources.secrets import read_secret
from tests.support.http_server import closed_port
from tests.support.servers import real


def forget_secrets() -> None:
    """Read all secrets again from now on, as a new process does."""
    if (reader := secrets._vault.get("")) is not None:
        reader.close()
    secrets._vault.clear()


CANARY = "canary-0815-secret"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    guard_configs()
    kept = dict(known_secrets.values)
    yield
    known_secrets.values, known_secrets.pattern, known_secrets.certain = {}, None, None
    for value, certain in kept.items():
        known_secrets.add(value, certain=certain)
    forget_secrets()


def assert_hidden(cfg: DictConfig, value: str) -> None:
    assert cfg.key == value
    assert hide_secrets(f"x {value} y") == "x *** y"
    for text in (str(mask_config(cfg)), saved_config(cfg), OmegaConf.to_yaml(cfg), str(pickle.dumps(cfg))):
        assert value not in text


def test_of_the_environment_and_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANY_NAME", f"{CANARY}-env")
    (tmp_path / "token").write_text(f"{CANARY}-file\n")
    for text, value in (
        ("${secret:env,ANY_NAME}", f"{CANARY}-env"),
        ("${secret:ANY_NAME}", f"{CANARY}-env"),
        (f"${{secret:file,{tmp_path}/token}}", f"{CANARY}-file"),
    ):
        assert_hidden(OmegaConf.create({"key": text}), value)


def test_a_variable_is_hidden_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANY_NAME", f"{CANARY}-early")
    register_config({"key": "${secret:env,ANY_NAME}"})
    assert hide_secrets(f"{CANARY}-early") == "***"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("env", "NO_SUCH_VARIABLE"), "${secret:env,NO_SUCH_VARIABLE}: Environment variable 'NO_SUCH_VARIABLE' not"),
        (("NO_SUCH_VARIABLE",), "${secret:env,NO_SUCH_VARIABLE}: "),
        (("file", "/no/such/file"), "${secret:file,/no/such/file}: /no/such/file does not exist."),
        (("file", "/"), "/: is not readable (Is a directory)."),
        (("vault", "secret/x"), "${secret:vault,secret/x}: is not a form of a secret. Write ${secret:env,"),
        (("gcp", "x"), "${secret:gcp,x}: is not a form of a secret."),
    ],
)
def test_a_secret_that_is_not_there_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_secret(*arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    for name, problem in (("empty", "is empty"), ("binary", "is not UTF-8"), ("large", "has more than 65,536 bytes")):
        with pytest.raises(SourceError, match=problem):
            read_secret("file", str(tmp_path / name))


def test_vault_that_is_down_or_not_set_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    with pytest.raises(SourceError, match=r"has no server\. Set VAULT_ADDR"):
        read_secret("vault", "secret/x", "key")
    forget_secrets()
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(SourceError, match=r"has no token\. Set VAULT_TOKEN"):
        read_secret("vault", "secret/x", "key")
    forget_secrets()
    monkeypatch.setenv("VAULT_TOKEN", "hvs.canary")
    with pytest.raises(SourceError, match=r"vault://127.0.0.1:\d+/secret/x: failed \(Connection refused\)") as caught:
        open_reader("vault:///", ReadOptions(max_retry=0)).read("secret/x")
    assert "canary" not in str(caught.value)


@pytest.mark.slow
def test_of_a_real_vault_both_versions_and_a_token_that_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real.vault(tmp_path) as url:
        import hvac

        root = hvac.Client(url=url, token="root")
        root.sys.enable_secrets_engine("kv", path="kv1", options={"version": "1"})
        root.secrets.kv.v1.create_or_update_secret("a/b", {"key": f"{CANARY}-v1"}, mount_point="kv1")
        root.secrets.kv.v2.create_or_update_secret("wandb", {"key": f"{CANARY}-v2"})
        policy = 'path "secret/*" {capabilities = ["read"]}\npath "kv1/*" {capabilities = ["read"]}'
        root.sys.create_or_update_policy("reader", policy)
        token = root.auth.token.create(policies=["reader"], ttl="3s", renewable=True)["auth"]["client_token"]
        monkeypatch.setenv("VAULT_ADDR", url)
        monkeypatch.setenv("VAULT_TOKEN", token)
        assert_hidden(OmegaConf.create({"key": "${secret:vault,secret/wandb,key}"}), f"{CANARY}-v2")
        assert_hidden(OmegaConf.create({"key": "${secret:vault,kv1/a/b,key}"}), f"{CANARY}-v1")
        for path, key, problem in (
            ("secret/none", "key", "Vault has no secret at secret/none"),
            ("secret/wandb", "kye", r"the secret secret/wandb has no key kye.*key"),
            ("other/x", "key", "refused the token, which is wrong, has expired or lacks the right"),
        ):
            with pytest.raises(SourceError, match=problem):
                read_secret("vault", path, key)
        time.sleep(4.5)  # the token was renewed meanwhile
        forgotten = open_reader("vault:///")
        assert forgotten.read("secret/wandb") is not None
        forgotten.close()
        forget_secrets()
        time.sleep(4.5)  # and now it was not
        with pytest.raises(SourceError, match="refused the token"):
            open_reader("vault:///").read("secret/wandb")
    with pytest.raises(InterpolationResolutionError, match=r"refused|failed"):
        _ = OmegaConf.create({"key": "${secret:vault,secret/wandb,key}"}).key
