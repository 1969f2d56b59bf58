"""The notebooks run from top to bottom, and what is committed is what they showed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(path: Path) -> list[Any]:
    return [output for cell in code_cells(path) for output in cell.outputs]


def words(path: Path) -> str:
    """Everything in the notebook but its pictures, whose base64 may spell anything."""
    book: Any = nbformat.read(path, as_version=4)
    for cell in book.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    return json.dumps(book)


def named(path: Path) -> str:
    return path.stem


def test_there_is_a_notebook() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["analyse_sweep", "core", "quickstart"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder; what one notebook trains there another finds, as at home."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("conf", "train.py"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks").mkdir()
    return folder


# What a notebook says -> what it says here, where nobody looks at the pictures.
SMALL = {
    "training.steps=300": "training.steps=20",
    "training.warmup=30": "training.warmup=2",
    "fit_steps=300": "fit_steps=20",
    "evaluation.samples=200": "evaluation.samples=120",
    "samples=200": "samples=120",
    '"backbone.patch=2"': '"backbone.patch=2", "backbone.width=8"',
    "moons, 2000, labelled": "moons, 500, labelled",
    "Steady(), moons, 1200": "Steady(), moons, 200",
    "repeats=20": "repeats=5",
    "nfe=481": "nfe=121",
}


def test_what_is_made_small_stands_in_a_notebook() -> None:
    sources = "".join(cell.source for path in NOTEBOOKS for cell in code_cells(path))
    assert [large for large in SMALL if large not in sources] == []


def at_small_scale(book: Any) -> Any:
    for cell in book.cells:
        for large, small in SMALL.items():
            cell.source = cell.source.replace(large, small)
    return book


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_every_cell_runs(path: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = project / "notebooks" / path.name
    shutil.copy(path, copy)
    # A kernel of this interpreter, whatever is registered on the machine.
    kernel = tmp_path / "kernels" / "here" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "here", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    book = at_small_scale(nbformat.read(copy, as_version=4))
    NotebookClient(book, kernel_name="here", timeout=300, resources={"metadata": {"path": str(copy.parent)}}).execute()
    executed = [output for cell in book.cells for output in cell.get("outputs", [])]
    # A sampler with so few calls that the quickstart shows how it fails is warned of.
    errors = [output.text for output in executed if output.get("name") == "stderr"]
    assert not [text for text in errors if "is too few for this sampler" not in text]
    assert sum("image/png" in output.get("data", {}) for output in executed) == sum(
        "image/png" in output.get("data", {}) for output in outputs(path)
    )
    assert set(copy.parent.iterdir()) <= {copy.parent / other.name for other in NOTEBOOKS}
    assert {below.name for below in project.iterdir()} <= {"conf", "notebooks", "runs", "train.py"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_the_committed_one_is_whole_small_and_nobodys(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run it from top to bottom before it is committed"
    assert not [output for output in outputs(path) if output.get("name") == "stderr" or output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs(path))
    assert not re.findall(r"(?<![\w.])/(?:\w[\w.-]*/)+[\w.-]*|[A-Z]:\\\\", words(path)), "a path of somebody's machine"
