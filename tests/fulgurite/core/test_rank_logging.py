"""The project's logger: ranks, arguments, call sites, and a quiet terminal."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress

import pytest

from fulgurite.core.rank_logging import RankedLogger, filter_library_logs, rank, report_write_error_once
from tests.support.run_if import RunIf


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "RANK",
        "SLURM_PROCID",
        "PMI_RANK",
        "OMPI_COMM_WORLD_RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "SLURM_NTASKS",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("every_rank", [False, True])
def test_arguments_and_call_sites_are_kept(every_rank: bool, caplog: pytest.LogCaptureFixture) -> None:
    log = RankedLogger("a.b", every_rank=every_rank)
    with caplog.at_level(logging.INFO):
        log.info("value %s of %d", "x", 5)
    [record] = caplog.records
    assert record.getMessage() == "value x of 5"
    assert record.filename == "test_rank_logging.py"
    assert record.funcName == "test_arguments_and_call_sites_are_kept"


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK"])
def test_other_ranks_are_silent_unless_every_rank_speaks(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, "1")
    assert rank() == 1
    with caplog.at_level(logging.INFO):
        RankedLogger("one").info("from rank zero only")
        RankedLogger("all", every_rank=True).info("from %s", "everyone")
    assert caplog.messages == ["[rank 1] from everyone"]


def test_rank_zero_of_several_says_its_rank(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level(logging.INFO):
        RankedLogger("all", every_rank=True).info("hello")
    assert caplog.messages == ["[rank 0] hello"]


def test_tips_and_warnings_without_a_remedy_are_dropped_and_others_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger().addHandler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        filter_library_logs()
        logging.getLogger("lightning.pytorch").warning("💡 Tip: buy this")
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        saved = "Attribute 'net' is an instance of `nn.Module` and is already saved during checkpointing."
        warnings.warn(saved, stacklevel=1)
        use = "use torch.distributed._functional_collectives.all_gather_single instead."
        warnings.warn(f"torch.distributed.nn.functional.all_gather is deprecated, {use}", stacklevel=1)
        warnings.warn("your labels are empty", stacklevel=1)
    named = (
        "Tip",
        "many workers",
        "already saved during checkpointing",
        "deprecated",
    )  # checkpoints.content names the last
    assert not [message for message in caplog.messages if any(text in message for text in named)]
    (shown,) = (message for message in caplog.messages if "your labels are empty" in message)
    assert shown == shown.rstrip()


def test_warnings_can_be_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        filter_library_logs(ignore_warnings=True)
        warnings.warn("anything", stacklevel=1)
    assert "anything" not in caplog.text


@RunIf(path="/dev/full")
def test_a_log_file_without_space_is_reported_once_and_the_run_continues(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.FileHandler("/dev/full")
    report_write_error_once(handler)
    for number in range(3):
        handler.handle(logging.LogRecord("x", logging.INFO, __file__, number, "text", (), None))
    output = capsys.readouterr().err
    assert output == "warning: /dev/full: not writable ([Errno 28] No space left on device). The run continues.\n"
    with suppress(OSError):  # what is left in its buffer has no room either
        handler.close()
