"""`python train.py ...` and `python -m diffsweep ...` as forks of one process that has imported torch and Lightning.

The imports take five seconds of a processor, a tiny run takes less than one. A fork is told its command line, folder
and environment and then does what Python would; and so are the Python processes that it starts to train or to evaluate
(`_FORKED`), which import this package anew, from where they are told to. What an environment variable does while a
library is imported (`OMP_NUM_THREADS`) is done already, and what is to be seen of the imports themselves needs a
process of its own: `subprocess.run`.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_IMPORTED = ["diffsweep.entry.train", "diffsweep.runs.stages", "diffsweep.report.terminal"]
_CONTEXT.set_forkserver_preload(_IMPORTED)
# What `python -m` runs of those processes that train or evaluate.
_FORKED = (["diffsweep.entry.job_process", "serve"], ["diffsweep.entry.trial"])


class Run:
    """A running Python; to be used as a `subprocess.Popen` with pipes and text is.

    `stdout_file` and `stderr_file` hold what it has written so far.
    """

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        """Start `python ARGUMENT ...`, a script or `-m` and a module, in the folder `cwd` with the environment `env`.

        In a session of its own, as a shell gives to what it starts: Ctrl-C then reaches all of it and not the tests.
        """
        self.args = [sys.executable, *arguments]
        self._folder = tempfile.TemporaryDirectory(prefix="run-")
        self.stdout_file, self.stderr_file = (Path(self._folder.name) / name for name in ("stdout", "stderr"))
        for file in (self.stdout_file, self.stderr_file):
            file.touch()
        self._process = _CONTEXT.Process(
            target=_python, args=(self.args[1:], cwd, dict(env), self.stdout_file, self.stderr_file)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code at its end. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written to standard output and error when it has ended. Raises subprocess.TimeoutExpired."""
        self.wait(timeout)
        return self.stdout_file.read_text(), self.stderr_file.read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENT ...` to its end. Raises subprocess.TimeoutExpired after `timeout` seconds."""
    process = Run(arguments, cwd, env)
    try:
        stdout, stderr = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)


class _Popen(subprocess.Popen[Any]):
    """Starts the programs of `_FORKED` as forks of this process; whatever else, as ever."""

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        if list(args[:2]) == [sys.executable, "-m"] and any(args[2 : 2 + len(words)] == words for words in _FORKED):
            sys.stdout.flush()
            sys.stderr.flush()
            module = partial(_module, args[2:], dict(options.get("env") or os.environ))
            # It never returns, so nothing is executed in place of this process.
            options["preexec_fn"] = partial(_to_the_end, module, {0, 1, 2, *options.get("pass_fds", ())})
        super().__init__(args, *more, **options)


def _python(arguments: list[str], cwd: Path, env: dict[str, str], stdout: Path, stderr: Path) -> None:
    """Become `python ARGUMENT ...` in the folder, with the environment and the files for output."""
    assert sys.modules.keys() >= {*_IMPORTED}, "the process that forks could not import what it should"
    os.setsid()
    for place, path in enumerate((os.devnull, stdout, stderr)):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(cwd)
    subprocess.Popen = _Popen
    try:
        if arguments[0] == "-m":
            _begin(arguments[1:], cwd, env)
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            _begin(arguments, Path(arguments[0]).parent, env)
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        # As at the end of every Python, but not of a process of multiprocessing.
        atexit._run_exitfuncs()


def _module(words: list[str], env: dict[str, str]) -> None:
    """Become `python -m WORD ...` with the environment."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("diffsweep", "hydra_plugins")]:
        del sys.modules[name]
    _begin(words, Path.cwd(), env)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _begin(argv: list[str], folder: Path, env: dict[str, str]) -> None:
    """What Python finds when it starts: signals, streams, environment, arguments, and where modules lie."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Popen has reset it for the program that it takes this to be; every Python ignores it when it starts.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    sys.path[:0] = [str(folder), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]


def _to_the_end(program: Callable[[], object], kept: set[int]) -> None:
    """Leave this process when the program ends, with its exit code; of the open files it has those of `kept`."""
    code = 1
    try:
        for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
            if descriptor not in kept:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        program()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
