"""Python processes that tests start: programs of the folder `programs`, which say what they do in their docstrings."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from diffsweep.sweep.store.process import Process

PROGRAMS = Path(__file__).parent / "programs"


def command(program: str, *arguments: str | Path) -> list[str]:
    """The command line of `programs/<program>.py`."""
    return [sys.executable, str(PROGRAMS / f"{program}.py"), *map(str, arguments)]


def run(program: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """What a program prints, and how it ends. `options` are those of `subprocess.run`."""
    settings: dict[str, Any] = {"check": False, "timeout": 300} | options
    return subprocess.run(command(program, *arguments), capture_output=True, text=True, **settings)


def start(program: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A program that runs, with pipes for input and output."""
    return subprocess.Popen(
        command(program, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a started program prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def end(process: subprocess.Popen[str]) -> None:
    """Kill a program, if it still runs, and close its pipes."""
    process.kill()
    process.communicate()


def kill_with_children(pid: int) -> list[psutil.Process]:
    """Kill the process `pid` and all that it has started; returns those children, which may need a moment to be gone.

    What ends by itself meanwhile, or when its parent does, is none to complain of.
    """
    parent = psutil.Process(pid)
    children = parent.children(recursive=True)
    for process in (parent, *children):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return children


def dead() -> Process:
    """The identity of a process of this machine that has ended."""
    process = Process.parse(json.loads(run("print_own_process", check=True).stdout))
    assert process is not None
    return process


def loaded(*words: str, cwd: Path | None = None) -> tuple[set[str], str]:
    """All modules in memory of a fresh process at its end, and what it printed; `words`: see `loaded_modules.py`."""
    done = run("loaded_modules", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    printed, _, names = done.stdout.rpartition("\0")
    return set(names.split()), printed
