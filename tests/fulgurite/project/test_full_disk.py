"""A disk that is full before the first step ends a run in one line."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

TRAIN = f"{shlex.quote(sys.executable)} src/train.py experiment=example extras.print_config=false"
LINE = "No space left on device. Free space, or set paths.log_dir=<folder on another disk>."


def _has_namespaces() -> bool:
    """Return whether this user may mount a file system that others do not see."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(script: str, *wrapper: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*wrapper, "bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kilobytes", [4, 12, 16, 20, 24])
def test_a_run_on_a_disk_with_next_to_nothing_left_ends_in_one_line(kilobytes: int, tmp_path: Path) -> None:
    if not _has_namespaces():
        pytest.skip("a file system of a given size cannot be mounted here")
    mount = f"mount -t tmpfs -o size={kilobytes}k none {tmp_path}"
    done = _run(f"{mount} && {TRAIN} paths.log_dir={tmp_path}/logs", "unshare", "-rm")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: {LINE}"]


def test_a_run_that_may_not_write_a_byte_ends_in_one_line(tmp_path: Path) -> None:
    done = _run(f"ulimit -f 0; {TRAIN} paths.log_dir={tmp_path}/logs")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: " + LINE.replace("No space left on device", "File too large")]
