"""The private names of Hydra that the library uses exist."""

from __future__ import annotations

import dataclasses

import pytest
from hydra.core.utils import JobReturn, JobStatus

from fulgurite.compat.hydra import failed_job, raise_failure, returned_value


def test_the_result_of_a_job_is_read_without_raising_its_exception() -> None:
    assert "_return_value" in {field.name for field in dataclasses.fields(JobReturn)}
    error = ValueError("boom")
    assert returned_value(failed_job(error)) is error
    assert failed_job(error).status == JobStatus.FAILED
    assert returned_value(JobReturn(status=JobStatus.COMPLETED, _return_value=0.5)) == 0.5


def test_the_error_of_a_failed_job_is_raised_without_a_line_of_hydra(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="boom"):
        raise_failure(failed_job(ValueError("boom")))
    raise_failure(JobReturn(status=JobStatus.COMPLETED, _return_value=0.5))
    assert capsys.readouterr().err == ""
