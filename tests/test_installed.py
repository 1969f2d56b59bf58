"""The package as it is installed: a wheel in an environment of its own, used from folders that are no clone."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import diffsweep
from tiny import TINY

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow

RUN = [*TINY, "training.steps=10"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = ["build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with the wheel; what it depends on is borrowed from ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    own = next(folder.glob("lib/python3*/site-packages"))
    # Named in a .pth they are searched, but their own .pth files, such as that of our clone, are not followed.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (own / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    return python.parent


def run(programs: Path, *words: str, cwd: Path, code: int = 0) -> str:
    """What a program of the environment prints, errors included; it must end with `code`."""
    hidden = {"PYTHONPATH", "PYTHONSAFEPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(programs / words[0]), *words[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_carries_all_options_studies_and_the_template_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    assert len(names) == len(set(names))
    for folder, carried in (("conf", "conf"), ("sweeps", "conf/sweeps"), ("template", "template")):
        expected = {
            f"diffsweep/{carried}/{path.relative_to(ROOT / folder)}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert expected
        assert expected <= set(names)


def test_every_command_works_from_an_empty_folder(programs: Path, tmp_path: Path) -> None:
    assert run(programs, "diffsweep", "--version", cwd=tmp_path) == f"diffsweep {diffsweep.__version__}\n"
    assert "Commonest commands" in run(programs, "diffsweep", "train", "--help", cwd=tmp_path)
    sweep = ["sampler=ddim,heun", *RUN]
    planned = run(programs, "diffsweep", "plan", *sweep, cwd=tmp_path)
    assert "training: 1 to do" in planned
    printed = run(programs, "diffsweep", "train", *sweep, "-m", cwd=tmp_path)
    assert "2 runs of 1 training" in printed
    assert "\n  diffsweep train " in printed
    assert "train.py" not in printed
    # The jobs ran from a copy of what is installed, its options included.
    (source,) = tmp_path.glob("runs/sweeps/*/source-1")
    assert (source / "diffsweep" / "conf" / "config.yaml").is_file()
    assert "2/2" in run(programs, "diffsweep", "status", cwd=tmp_path)
    assert "heun" in run(programs, "diffsweep", "results", cwd=tmp_path)
    assert "report.html" in run(programs, "diffsweep", "report", "last", cwd=tmp_path)
    drawn = run(programs, "diffsweep", "sample", "best", "--sampler", "euler", "-n", "4", cwd=tmp_path)
    assert "sampler=euler" in drawn
    assert run(programs, "diffsweep", "resume", source.parent.name, cwd=tmp_path).count("heun") == 1


def test_a_conf_in_the_working_folder_adds_to_the_packages(programs: Path, tmp_path: Path) -> None:
    for folder, nfe in ((tmp_path / "conf", 3), (tmp_path / "more", 4)):
        (folder / "sampler").mkdir(parents=True)
        text = (ROOT / "conf" / "sampler" / "ddim.yaml").read_text().replace("nfe: 20", f"nfe: {nfe}")
        (folder / "sampler" / f"short_{folder.name}.yaml").write_text(text)
    configs = run(programs, "diffsweep", "train", "sampler=short_conf", "--cfg", "job", cwd=tmp_path)
    assert "\n  nfe: 3\n" in configs
    for words in (["--config-dir", "more", "train"], ["train", "--config-dir=more"]):
        configs = run(programs, "diffsweep", *words, "sampler=short_more", "--cfg", "job", cwd=tmp_path)
        assert "\n  nfe: 4\n" in configs
    for words in (["--config-dir", "more", "plan"], ["plan", "--config-dir", "more"]):
        planned = run(programs, "diffsweep", *words, "sampler=short_more,short_conf", *RUN, cwd=tmp_path)
        assert "2 cells of 1 training" in planned
    said = run(programs, "diffsweep", "train", "sampler=short_mroe", "--config-dir=more", cwd=tmp_path, code=2)
    assert "did you mean" in said
    assert "short_more" in said


def test_a_new_project_keeps_its_promises(programs: Path, tmp_path: Path) -> None:
    run(programs, "diffsweep", "init", "mine", cwd=tmp_path)
    project = tmp_path / "mine"
    assert (project / ".gitignore").is_file()
    said = run(programs, "diffsweep", "init", "mine", cwd=tmp_path, code=2)
    assert said.splitlines() == ["diffsweep: DIR=mine must be a new or empty folder"]
    assert "3 passed" in run(programs, "python", "-m", "pytest", "-q", cwd=project)
    sweep = ["+sweeps=rings", "training.steps=10", "evaluation.samples=64", "sampler.nfe=9"]
    printed = run(programs, "diffsweep", "train", "-m", *sweep, cwd=project)
    assert "3 runs of 1 training" in printed
    assert "ralston" in printed
