"""What a sweep copies of the user's own code: what its configs name and import, and no file that only lies beside."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import forked_runs
from diffsweep.files import CannotWriteError
from diffsweep.sweep.plan import snapshot
from diffsweep.sweep.plan.user_modules import dotted_names, user_modules
from tiny import TINY

ROOT = Path(__file__).parents[1]

FILES = {
    "mine.py": "import helpers\nfrom package.deep import thing\nimportlib.import_module('by_word')\n",
    "helpers.py": "import json, numpy\n",
    "by_word.py": "",
    "package/__init__.py": "",
    "package/deep.py": "from . import sibling\nfrom .lower.below import x\nthing = 1\n",
    "package/sibling.py": "",
    "package/lower/__init__.py": "",
    "package/lower/below.py": "from ..sibling import y\nx = 1\n",
    "package/table.csv": "1,2\n",
    "package/unrelated.py": "",
    "loose/module.py": "",
    "loose/other.py": "",
    "credentials.py": "TOKEN = 'x'\n",
    "project/secrets.py": "",
    "data/huge.py": "",
}
IMPORTED = {"mine.py", "helpers.py", "by_word.py"} | {name for name in FILES if name.startswith("package/")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(folder: Path, *dotted: str) -> set[str]:
    return {path.as_posix() for path in user_modules(folder, dotted).files}


def test_only_what_is_named_and_imported_is_copied(folder: Path) -> None:
    assert names(folder, "mine.Net", "torch.optim.Adam", "diffsweep.diffusion.Diffuser") == IMPORTED - {
        "package/table.csv"
    }
    assert names(folder, "loose.module.Net") == {"loose/module.py"}
    assert names(folder, "train.py", "credentials.py", "absent.Net", "sampler.nfe") == set()


def test_git_says_what_belongs_to_a_package(folder: Path) -> None:
    for command in (["init", "-q"], ["add", "package", "mine.py", "credentials.py"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "package" / "notes.txt").write_text("private")
    (folder / "package" / "new.py").write_text("")
    (folder / "mine.py").write_text(FILES["mine.py"] + "import package.new\n")
    found = user_modules(folder, ["mine.Net"])
    assert {path.as_posix() for path in found.files} == IMPORTED | {"package/new.py"}
    assert [path.as_posix() for path in found.left_out] == ["package/notes.txt"]


def test_names_are_found_wherever_they_stand_in_a_config() -> None:
    config = {"a": [{"_target_": "mine.Net", "fn": "mine.act"}], "b": {"c": "no name", "d": "1.5", "e": 3}}
    assert set(dotted_names(config)) == {"mine.Net", "mine.act"}


def test_a_disk_that_fills_while_the_source_is_copied_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copy2

    def full(source: Any, target: Any, **options: Any) -> Any:
        if "diffusion" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return copy(source, target, **options)

    monkeypatch.setattr(shutil, "copy2", full)
    # The default of a parameter, bound before.
    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    with pytest.raises(CannotWriteError) as raised:
        snapshot.take(tmp_path, tmp_path)
    assert len(str(raised.value)) < 300
    assert "disk is full" in str(raised.value) or "full" in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_sweep_copies_what_it_imports(folder: Path) -> None:
    (folder / "conf").symlink_to(ROOT / "conf")
    code = "import helpers\nfrom diffsweep.diffusion.solvers import Euler\n\n\nclass Mine(Euler): ...\n"
    (folder / "own_solver.py").write_text(code)
    words = ["-m", *TINY, "training.steps=20", "sampler=ddim", "sampler.solver._target_=own_solver.Mine"]
    done = forked_runs.run([str(ROOT / "train.py"), *words], folder, os.environ, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (source,) = folder.glob("runs/sweeps/*/source-1")
    copied = {path.relative_to(source / "work").as_posix() for path in (source / "work").rglob("*.py")}
    assert copied == {"own_solver.py", "helpers.py"}
    assert json.loads((source / "snapshot.json").read_text())["modules"] == ["helpers.py", "own_solver.py"]
