"""The source that the jobs of a sweep run from: a copy, made before the first of them starts.

What is edited while jobs wait in a queue reaches none of them. The copy holds this package, its Hydra plugins, the
configs, those of the user's own modules that the run imports (see `user_modules`), and snapshot.json: commit, versions,
machine, and what was left out. Jobs find the copy before what is installed, for it comes first in PYTHONPATH.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffsweep.files import explained, make_folder, write_atomic, write_json
from diffsweep.messages import say
from diffsweep.sweep.plan.user_modules import dotted_names_in, user_modules
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.provenance import changes, provenance

# Of the copy: its name is this and a number, and the user's own modules lie in a folder of it.
_PREFIX, _USER_MODULES = "source-", "work"
# As many names of files are told of what was left out.
_NAMED = 3


def take(folder: Path, cwd: Path, configs: tuple[Path, ...] = (), names: Iterable[str] = ()) -> Path:
    """Copy the source into a new folder `source-N` below `folder` and return it; if that fails, nothing is left.

    `cwd` is where the user's own modules lie, `configs` the folders of YAML that were composed from, `names` the dotted
    names of classes and functions that jobs may import besides those in YAML. Raises CannotWriteError.
    """
    package = Path(__file__).parents[2]
    number = 1 + max((int(path.name.removeprefix(_PREFIX)) for path in snapshots(folder)), default=0)
    source = folder / f"{_PREFIX}{number}"
    make_folder(source)
    try:
        _fill(source, package, cwd, configs, names)
    except BaseException:
        shutil.rmtree(source, ignore_errors=True)
        raise
    return source


def _fill(source: Path, package: Path, cwd: Path, configs: tuple[Path, ...], names: Iterable[str]) -> None:
    own = user_modules(cwd, {*names, *names_in_yaml(configs)})
    with explained(source), _first_reason(source):
        _copy(package, source / package.name)
        if (plugins := package.with_name("hydra_plugins")).is_dir():
            _copy(plugins, source / plugins.name)
        for config, copy in zip(configs, config_copies(source, len(configs)), strict=True):
            if config.is_dir():
                shutil.copytree(config, copy, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        (source / _USER_MODULES).mkdir(exist_ok=True)
        for path in own.files:
            copy = source / _USER_MODULES / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(cwd / path, copy)
    if own.left_out:
        first = ", ".join(map(str, own.left_out[:_NAMED]))
        more = f" and {len(own.left_out) - _NAMED} more" if len(own.left_out) > _NAMED else ""
        say(f"note: the copy of the source leaves out what git does not track: {first}{more}")
    diff = changes()
    if diff:
        write_atomic(source / "diff.patch", diff)
    copied = {"modules": list(map(str, own.files)), "left_out": list(map(str, own.left_out))}
    write_json(source / "snapshot.json", {**provenance(), **gpu(), **copied})


def snapshots(folder: Path) -> list[Path]:
    """The copies of the source in the folder of a sweep."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit())


def config_copies(source: Path, count: int) -> tuple[Path, ...]:
    """Where `take` copies `count` folders of YAML to."""
    return tuple(source / "conf" / (str(index) if index else "main") for index in range(count))


def import_user_modules(cwd: Path) -> None:
    """Make the user's own modules importable by this process, which works in the folder `cwd`.

    A process that runs from a snapshot takes the modules of the snapshot, which stay as they are while its job waits
    in a queue, and none of `cwd`, which `python -m` puts first; any other process takes those of `cwd`.
    """
    modules = Path(__file__).parents[3] / _USER_MODULES
    if modules.is_dir():
        sys.path[:] = [path for path in sys.path if path and Path(path) != cwd]
        import_from(modules)
    else:
        import_from(cwd)


def environment(source: Path) -> dict[str, str]:
    """What a process needs in its environment to run from `source`."""
    before = os.environ.get("PYTHONPATH")
    # Safe: `python -m` would else look into the working folder first, where the user's modules may have been edited.
    path = os.pathsep.join([str(source.absolute()), *([before] if before else [])])
    return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def gpu() -> dict[str, str | None]:
    """The GPUs of this machine and their driver, as its own tool says; null where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
        names = [line.partition(",")[0].strip() for line in lines]
        if names:
            return {"gpu": ", ".join(names), "driver": lines[0].partition(",")[2].strip()}
    return {"gpu": None, "driver": None}


def _copy(folder: Path, to: Path) -> None:
    # With the compiled files, whose stamps stay right: else the first of many jobs on a slow disk compiles them all.
    shutil.copytree(folder, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "*.tmp*"))


def names_in_yaml(folders: Iterable[Path]) -> Iterator[str]:
    """Dotted names in the YAML files of folders, comments apart."""
    for path in (path for folder in folders for path in folder.rglob("*.yaml") if path.is_file()):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from dotted_names_in("\n".join(line.partition("#")[0] for line in lines))


@contextmanager
def _first_reason(source: Path) -> Iterator[None]:
    """Raise one OSError about `source` in place of the list of all files of a tree that could not be copied."""
    try:
        yield
    except shutil.Error as error:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(source)) from error
        raise
