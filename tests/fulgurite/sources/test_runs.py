"""Runs and sweeps with remote configs and secrets: what they ask for, keep and show."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fulgurite.sources.reader import SourceError
from fulgurite.sources.secrets import read_secret
from tests.support.cli import only_run, run_cli
from tests.support.project import CONFIGS, ROOT
from tests.support.servers import real
from tests.support.servers.doubles import double

EXPERIMENT = b"# @package _global_\ndefaults:\n  - override /model: big\ntrainer:\n  gradient_clip_val: 0.25\n"
FILES = {"experiment/exp1.yaml": EXPERIMENT, "model/big.yaml": (CONFIGS / "model/mnist.yaml").read_bytes()}
SMALL = ("experiment=exp1", "trainer.max_epochs=1", "extras.print_config=false", "data.num_workers=0")
FEW = tuple(f"+trainer.limit_{part}_batches=2" for part in ("train", "val", "test"))
TRANSPORTS = ("requests", "urllib3", "etcd3gw", "hvac", "fsspec", "http.client", "urllib.request", "netrc")


@pytest.mark.slow
def test_composing_without_remote_sources_imports_no_transport() -> None:
    script = f"""
import sys
sys.argv = ["train.py"]
from fulgurite.config.yaml_limits import guard_configs
guard_configs()
import fulgurite
fulgurite.compose(["experiment=example"])
names = {TRANSPORTS!r}
print([name for name in names if name in sys.modules])
print(sorted(name for name in sys.modules if name.startswith("fulgurite.sources.transports.")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    found, transports = done.stdout.splitlines()
    assert transports == "[]"
    assert json.loads(found.replace("'", '"')) == [], done.stdout


@pytest.mark.slow
def test_a_run_resumes_and_is_evaluated_from_its_copies(tmp_path: Path) -> None:
    with double("http", FILES) as server:
        address = f"{server.url}/conf"
        done = run_cli("train", f"hydra.searchpath=[{address}]", *SMALL, *FEW, logs=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 5, server.requests
    run = only_run(tmp_path)
    lines = (run / "train.log").read_text().splitlines()
    assert lines[0].endswith(f"composed with configs from {address}")
    index = json.loads((run / ".hydra/sources/index.json").read_text())
    assert index[address]["files"].keys() == FILES.keys()
    for entry_point, named in (("train", f"resume={run}"), ("eval", f"run={run}")):
        more = ("trainer.max_epochs=2",) if entry_point == "train" else ()
        again = run_cli(entry_point, named, *more, logs=tmp_path)
        assert again.returncode == 0, again.stderr
        assert "Composing without" not in again.stderr
    assert json.loads((run / ".hydra/sources/index.json").read_text())[address]["files"] == index[address]["files"]


@pytest.mark.slow
def test_ranks_compose_what_rank_zero_has_composed(tmp_path: Path) -> None:
    with double("etcd", FILES) as server:
        ranks = ("trainer=ddp_sim", "trainer.devices=2")
        address = f"hydra.searchpath=[{server.url}/conf]"
        done = run_cli("train", address, *SMALL, *FEW, *ranks, logs=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(server.requests) == 5, server.requests


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_sweep_of_four_jobs_asks_at_most_ten_times(launcher: str, tmp_path: Path) -> None:
    with double("consul", FILES) as server:
        sweep = ("-m", "seed=1,2,3,4", f"hydra/launcher={launcher}", "test=false")
        address = f"hydra.searchpath=[{server.url}/conf]"
        done = run_cli("train", address, *SMALL, *FEW, *sweep, logs=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(server.requests) <= 10, server.requests
    kept = sorted((tmp_path / "train" / "multiruns").glob("*/*/.hydra/sources/index.json"))
    assert len(kept) == 4


@pytest.mark.slow
def test_the_canary_is_nowhere_in_what_a_run_and_a_sweep_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-4711-7b1f"
    (tmp_path / "token").write_text(f"{canary}-file\n")
    monkeypatch.setenv("ANY_NAME", f"{canary}-env")
    (tmp_path / "server").mkdir()
    with real.vault(tmp_path / "server") as url:
        import hvac

        hvac.Client(url=url, token="root").secrets.kv.v2.create_or_update_secret("x", {"key": f"{canary}-vault"})
        monkeypatch.setenv("VAULT_ADDR", url)
        monkeypatch.setenv("VAULT_TOKEN", "root")
        secrets = [
            "+callbacks.probe._target_=tests.support.secret_probe.SecretProbe",
            "+callbacks.probe.of_environment=${secret:env,ANY_NAME}",
            f"+callbacks.probe.of_file=${{secret:file,{tmp_path}/token}}",
            "+callbacks.probe.of_vault=${secret:vault,secret/x,key}",
        ]
        plain = ("experiment=example", "logger=csv", *SMALL[1:], *FEW, "extras.print_config=true")
        for more in ((), ("-m", "seed=1,2", "test=false")):
            done = run_cli("train", *plain, *secrets, *more, logs=tmp_path / "logs")
            assert done.returncode == 0, done.stdout + done.stderr
            assert canary not in done.stdout + done.stderr
            assert done.stdout.count("the probe has ***, *** and ***") == (2 if more else 1)
    left = [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]
    assert left
    assert [path for path in left if canary.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_secret_or_a_source_that_is_missing_ends_a_run_with_one_line_and_code_2(tmp_path: Path) -> None:
    for override, message in (
        ("callbacks.early_stopping.monitor=${secret:file,/no/such}", "/no/such does not exist."),
        ("hydra.searchpath=['http://127.0.0.1:1/conf#max_retry=x']", "max_retry=x: is not a whole number. Correct it."),
    ):
        done = run_cli("train", "experiment=example", override, logs=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


SECTION = (ROOT / "docs/configuration.md").read_text().split("\n## Sources and secrets\n")[1].split("\n## ")[0]
COMMANDS = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)[0].splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_page_composes(command: str, tmp_path: Path) -> None:
    kind = next(kind for kind in ("https", "etcd", "consul") if f"{kind}://" in command)
    files = {path.removeprefix("/"): data for path, data in FILES.items()}
    with double(kind.removesuffix("s"), files) as server:
        here = re.sub(r"(https|etcd|consul)://[\w.:]+/team", f"{server.url}/conf", command)
        arguments = shlex.split(here.replace(",s3://bucket/configs", ",memory://bucket/configs"))[2:]
        done = run_cli("train", *arguments, "--cfg=job", logs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gradient_clip_val: 0.25" in done.stdout


def test_the_secrets_of_the_page_have_forms_that_exist() -> None:
    block = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[0]
    for text in re.findall(r"\$\{secret:(.*?)\}", block):
        with pytest.raises(SourceError) as caught:
            read_secret(*text.split(","))
        assert "is not a form" not in str(caught.value)
