"""New files in code.patch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fulgurite.runs import new_files
from fulgurite.runs.provenance import code_patch

NEW = {
    "src/new.py": "x = 1\ny = 2\n",
    "src/no end.py": "# é\nx = 1",
    "é.yaml": "a: 1\r\n",
    "empty.py": "",
    "blank.txt": "\n\n",
}


KEY = "private key".upper()  # so that checks of this file find no key


def _git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a project inside a checkout, with a commit."""
    project = tmp_path / "checkout/project"
    (project / "src").mkdir(parents=True)
    (project / ".gitignore").write_text("ignored.py\n")
    _git(project.parent, "init", "-q")
    _git(project, "add", ".")
    _git(project, "commit", "-qm", "a")
    return project


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def test_git_applies_a_patch_with_new_files_and_its_index_stays(checkout: Path, tmp_path: Path) -> None:
    _write(checkout, {**NEW, "ignored.py": "z = 1\n"})
    (checkout / "run.sh").write_text("true\n")
    (checkout / "run.sh").chmod(0o755)
    index = (checkout.parent / ".git/index").read_bytes()
    patch = code_patch(checkout)
    assert (checkout.parent / ".git/index").read_bytes() == index
    assert "ignored" not in patch
    _git(tmp_path, "clone", "-q", str(checkout.parent), "clone")
    (tmp_path / "code.patch").write_bytes(patch.encode())
    _git(tmp_path / "clone", "apply", "--whitespace=nowarn", str(tmp_path / "code.patch"))
    copy = tmp_path / "clone/project"
    for name, text in NEW.items():
        assert (copy / name).read_bytes() == text.encode(), name
    assert (copy / "run.sh").stat().st_mode & 0o100
    assert _git(copy, "status", "--porcelain", "-uall") == _git(checkout, "status", "--porcelain", "-uall")


def test_what_a_patch_leaves_out_is_named_at_its_end(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(checkout, {"a.py": "token = 'abcdef'\n", "big.txt": "x" * 300, "image.png": "\0", "b.txt": "b" * 100})
    _write(checkout, {".env": "A=of-nobody\n", "my_key.json": "{}", "of.txt": f"-----BEGIN {KEY}-----\nabc\n"})
    (checkout / "link.py").symlink_to("a.py")
    _write(checkout, {"line\nbreak.py": ""})
    monkeypatch.setattr(new_files, "MAX_FILE", 200)
    monkeypatch.setattr(new_files, "MAX_ALL", 210)
    patch = code_patch(checkout)
    assert "+token = ***\n" in patch
    assert "of-nobody" not in patch
    assert patch.splitlines()[-1] == (
        "... new files that are left out: 'line\\nbreak.py' (its name), link.py (not a plain file), .env (may hold "
        "secrets), b.txt (more than 210 B of new files), big.txt (300 B), image.png (not text), my_key.json (may hold "
        "secrets), of.txt (may hold secrets)"
    )
    monkeypatch.setattr(new_files, "MAX_LISTED", 1)
    assert code_patch(checkout).endswith("left out: 'line\\nbreak.py' (its name) and 7 more\n")
    monkeypatch.setattr(new_files, "MAX_FILES", 2)
    patch = code_patch(checkout)
    assert "+token = ***\n" in patch
    assert patch.endswith("left out: 'line\\nbreak.py' (its name) and 7 more\n")


def test_files_of_runs_are_no_code(checkout: Path) -> None:
    _write(checkout, {"out/1/.hydra/config.yaml": "a: 1\n", "out/1/train.log": "of a run\n", "out/2/run.json": "{}"})
    _write(checkout, {"out/2/a/x.txt": "of a run\n", "sweep/sweep.jsonl": "", "sweep/summary.csv": "a\n"})
    assert code_patch(checkout) == ""
    _write(checkout, {"out/of_a_user.py": "x = 1\n"})
    assert code_patch(checkout).count("diff --git") == 1
