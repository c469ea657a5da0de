"""The private names of Hydra that the library uses exist."""

from __future__ import annotations

import dataclasses

from hydra.core.utils import JobReturn, JobStatus

from fulgurite.compat.hydra import failed_job, returned_value


def test_the_result_of_a_job_is_read_without_raising_its_exception() -> None:
    assert "_return_value" in {field.name for field in dataclasses.fields(JobReturn)}
    error = ValueError("boom")
    assert returned_value(failed_job(error)) is error
    assert failed_job(error).status == JobStatus.FAILED
    assert returned_value(JobReturn(status=JobStatus.COMPLETED, _return_value=0.5)) == 0.5
