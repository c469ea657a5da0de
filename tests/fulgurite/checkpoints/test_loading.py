"""Which weights: explicit over best over last, from a file or a server, never another file than was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.core.errors import UserError
from fulgurite.core.files import sha256_of
from src.eval import evaluate
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import read_json
from tests.support.http_server import FileServer, Reply


@pytest.fixture
def trained(small: ComposeSmall, tmp_path: Path) -> tuple[Path, dict[str, float]]:
    """Train for two epochs and return the run directory and its metrics."""
    metrics = train(small("trainer.max_epochs=2", folder=tmp_path / "trained"))
    return tmp_path / "trained", metrics


def test_a_checkpoint_is_fetched_by_its_address_once_and_checked_against_its_sum(
    trained: tuple[Path, dict[str, float]], small: ComposeSmall, tmp_path: Path
) -> None:
    folder, metrics = trained
    best = folder / read_json(folder / "results.json")["weights"]
    with FileServer({"/best.ckpt": Reply(best.read_bytes())}) as server:
        words = (f"ckpt_path={server.url}best.ckpt", f"ckpt_sha256={sha256_of(best)}")
        first = evaluate(small(*words, config_name="eval", folder=tmp_path / "first"))
    # the server is gone: what was fetched is used again
    second = evaluate(small(*words, config_name="eval", folder=tmp_path / "second"))
    assert first["test/acc"] == second["test/acc"] == metrics["test/acc"]


def test_a_checkpoint_with_another_sum_is_refused(
    trained: tuple[Path, dict[str, float]], small: ComposeSmall, tmp_path: Path
) -> None:
    last = trained[0] / "checkpoints/last.ckpt"
    with pytest.raises(UserError, match=rf"ckpt_path={last}: its sha256 is {sha256_of(last)}, not ckpt_sha256=00000"):
        evaluate(small(f"ckpt_path={last}", f"ckpt_sha256='{'0' * 64}'", config_name="eval", folder=tmp_path / "eval"))


def test_the_best_weights_of_this_run_are_tested_also_when_it_went_on_from_others(
    trained: tuple[Path, dict[str, float]], small: ComposeSmall, tmp_path: Path
) -> None:
    last = trained[0] / "checkpoints/last.ckpt"
    train(small("trainer.max_epochs=3", f"ckpt_path={last}", folder=tmp_path / "more"))
    weights = read_json(tmp_path / "more/results.json")["weights"]
    assert weights == "checkpoints/best-002.ckpt"
    assert (tmp_path / "more" / weights).is_file()


def test_a_checkpoint_of_another_optimizer_is_refused_and_its_weights_can_be_taken(
    small: ComposeSmall, tmp_path: Path
) -> None:
    train(small("test=false"))
    last = tmp_path / "run/checkpoints/last.ckpt"
    other = ("test=false", f"ckpt_path={last}", "trainer.max_epochs=2", "model.optimizer._target_=torch.optim.SGD")
    with pytest.raises(UserError, match=r"with another optimizer: it holds no .*momentum.*, which SGD needs") as caught:
        train(small(*other, folder=tmp_path / "other"))
    assert str(caught.value).endswith("or load only the weights with resume.mode=weights.")
    record = read_json(tmp_path / "other/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 2)
    train(small(*other, "resume.mode=weights", folder=tmp_path / "weights"))
    assert read_json(tmp_path / "weights/run.json")["status"] == "done"
