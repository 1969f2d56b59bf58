"""Every file of a runs folder corrupted in every way: each command answers, in one line if it cannot do its work.

A sample of the walk runs always; `pytest -m whole tests/test_corruption_walk.py` walks all of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffsweep import commands
from finished_runs import CONF
from tiny import TINY

ROOT = Path(__file__).parents[1]
# One corruption in so many is tried always.
SAMPLED = 28

CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "null": lambda path: path.write_text("null"),
    "list": lambda path: path.write_text("[1, 2]"),
    "other keys": lambda path: path.write_text('{"a": {"b": [null]}}'),
    "nested": lambda path: path.write_text("[" * 100_000),
    "gone": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
}

COMMANDS = [
    ["status"],
    ["status", "night"],
    ["results"],
    ["results", "--format", "csv"],
    ["results", "--format", "json"],
    ["report", "night", "--out", "page.html"],
    ["report", "sampler=ddim", "--out", "page.html"],
    ["gc"],
    ["gc", "--yes", "--older-than", "0"],
    ["cancel", "night"],
    ["sample", "last", "-n", "2", "--device", "cpu", "--out", "drawn"],
    ["wandb-sync", "night", "--offline"],
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished sweep of two cells of one training."""
    import forked_runs

    project = tmp_path_factory.mktemp("project")
    (project / "conf").symlink_to(CONF)
    words = [
        "-m",
        *TINY,
        "training.steps=20",
        "sampler=ddim,heun",
        "sampler.nfe=4",
        "hydra.sweep.dir=runs/sweeps/night",
    ]
    done = forked_runs.run([str(ROOT / "train.py"), *words], project, os.environ, timeout=300)
    assert done.returncode == 0, done.stderr
    return project


def files(project: Path) -> list[str]:
    """The files that commands read: all but logs and the copy of the source."""
    kept = [path.relative_to(project) for path in sorted((project / "runs").rglob("*")) if path.is_file()]
    return [path.as_posix() for path in kept if not {"logs", "source-1"} & set(path.parts) and path.suffix != ".html"]


def walk(project: Path) -> Iterator[tuple[str, str, int]]:
    for name in files(project):
        for kind in CORRUPTIONS:
            yield from ((name, kind, index) for index in range(len(COMMANDS)))


def fault(project: Path, name: str, kind: str, index: int, scratch: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with a command's answer about a corrupted file; empty if nothing is."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(project, scratch, symlinks=True, ignore=shutil.ignore_patterns("source-1"))
    CORRUPTIONS[kind](scratch / name)
    capsys.readouterr()
    before = Path.cwd()
    os.chdir(scratch)
    try:
        code = commands.main(COMMANDS[index])
    except BaseException as error:
        return f"raised {type(error).__name__}: {str(error)[:150]}"
    finally:
        os.chdir(before)
    out, err = capsys.readouterr()
    if "Traceback" in out + err:
        return "a traceback: " + err.strip().splitlines()[-1][:150]
    # Which run `last` is, is said before what is wrong with it.
    mistakes = [line for line in err.strip().splitlines() if not line.startswith("last: ")]
    if code == 2 and len(mistakes) != 1:
        return f"{len(mistakes)} lines: {err[:150]}"
    return "" if code in (0, 1, 2) and out + err else f"exit code {code} without a word"


def faults(project: Path, tried: list[tuple[str, str, int]], scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    kinds = Counter[str]()
    for name, kind, index in tried:
        kinds[kind] += 1
        if found := fault(project, name, kind, index, scratch, capsys):
            said.append(f"{name} {kind}: diffsweep {' '.join(COMMANDS[index])}: {found}")
    with capsys.disabled():
        print(f"{len(tried)} commands about corrupted files, {len(said)} answered wrongly: {dict(kinds)}")
    assert not said, "\n".join(said)


def chosen(one: tuple[str, str, int]) -> bool:
    # The names of fits and cells are not the same on every machine.
    name = "/".join(part for part in one[0].split("/") if len(part) != 12)
    return hashlib.sha256(f"{name} {one[1]} {one[2]}".encode()).digest()[0] % SAMPLED == 0


def test_a_sample_of_corrupted_files_is_answered(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = [one for one in walk(original) if chosen(one)]
    assert len(tried) > 50
    faults(original, tried, tmp_path / "scratch", capsys)


@pytest.mark.whole
@pytest.mark.timeout(7200)
def test_every_corrupted_file_is_answered(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faults(original, list(walk(original)), tmp_path / "scratch", capsys)
