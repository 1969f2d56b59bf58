"""What a shell completes behind `diffsweep`: in a real bash, and what each kind of word is completed to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffsweep import commands
from prerequisites import need_module

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    need_module("argcomplete")
    (tmp_path / "runs" / "sweeps" / "night").mkdir(parents=True)
    (tmp_path / "runs" / "fits" / "0123abcd" / "cells" / "4567ef01").mkdir(parents=True)
    return tmp_path


def completed(folder: Path, line: str, *python: str) -> list[str]:
    """What the shell is told for a cursor at the end of a line."""
    out = folder / "out"
    out.unlink(missing_ok=True)
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    environment = os.environ | asked | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, *(python or ("-m", "diffsweep"))]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    return [word.strip() for word in out.read_text().split("\n") if word.strip()]


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("diffsweep ", {"train", "status", "completion"}, set()),
        ("diffsweep sta", {"status"}, {"train"}),
        ("diffsweep train sampler=he", {"sampler=heun"}, {"sampler=ddim"}),
        ("diffsweep train -m sampler=ddim,he", {"sampler=ddim,heun"}, {"sampler=heun"}),
        ("diffsweep train metric=[energy,acc", {r"metric=\[energy,accuracy"}, set()),
        ("diffsweep train sampler/sp", {"sampler/spacing="}, set()),
        ("diffsweep train training.st", {"training.steps="}, {"training.batch_size="}),
        ("diffsweep train trainer.progress=", {"trainer.progress=true", "trainer.progress=false"}, set()),
        ("diffsweep train --mul", {"--multirun"}, set()),
        ("diffsweep plan sch", {"schedule="}, set()),
        ("diffsweep status n", {"night"}, {"last"}),
        ("diffsweep status --runs elsewhere ", {"last"}, {"night"}),
        ("diffsweep sample 45", {"4567ef01"}, {"0123abcd"}),
        ("diffsweep compare best 01", {"0123abcd"}, {"best"}),
        ("diffsweep results sampler=d", {"sampler=ddim"}, {"sampler=heun"}),
        ("diffsweep results --form", {"--format"}, set()),
        ("diffsweep results --format ", {"csv", "json"}, set()),
        ("diffsweep explain sampler.spacing.r", {"sampler.spacing.rho"}, set()),
        ("diffsweep options sampler=he", {"sampler=heun"}, set()),
    ],
)
def test_a_word_is_completed(folder: Path, line: str, some: set[str], none: set[str]) -> None:
    found = set(completed(folder, line))
    assert some <= found
    assert not none & found
    assert all(word.replace("\\", "").startswith(line.rpartition(" ")[2]) for word in found)


def test_completion_loads_nothing_slow(folder: Path) -> None:
    code = (
        "import atexit, sys; from diffsweep.commands import main; "
        "import os; leave = os._exit; "
        "os._exit = lambda code: (print(sorted({'torch', 'numpy', 'hydra', 'pandas'} & set(sys.modules)), "
        "file=open('loaded', 'w'), flush=True), leave(code)); main()"
    )
    assert completed(folder, "diffsweep train training.st", "-c", code)
    assert (folder / "loaded").read_text().strip() == "[]"


def test_a_real_bash_completes(folder: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    script = folder / "diffsweep"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m diffsweep "$@"\n')
    script.chmod(0o755)
    asked = """
eval "$(diffsweep completion bash)"
COMP_LINE='diffsweep train sampler=he' COMP_POINT=26 COMP_TYPE=9 COMP_WORDS=(diffsweep train sampler=he) COMP_CWORD=2
_python_argcomplete diffsweep he sampler=he
echo "<${COMPREPLY[@]}>"
complete -p diffsweep
"""
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", asked], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert "heun" in done.stdout.partition("\n")[0], done.stdout + done.stderr
    assert "_python_argcomplete" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_of_each_shell_names_the_command(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["completion", shell]) == 0
    assert "diffsweep" in capsys.readouterr().out
