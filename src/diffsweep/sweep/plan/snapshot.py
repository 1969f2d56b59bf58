"""The source that the jobs of a sweep run from: a copy, made before the first of them starts.

What is edited while jobs wait in a queue reaches none of them. The copy holds this package, its Hydra plugins, the
configs, the user's own modules of the working folder, and snapshot.json: commit, versions, machine. Jobs find the copy
before what is installed, for it comes first in PYTHONPATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from diffsweep.files import explained, make_folder, write_atomic, write_json
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.provenance import changes, provenance

# Of the copy: its name is this and a number, and the user's own modules lie in a folder of it.
_PREFIX, _USER_MODULES = "source-", "work"
# Folders that hold no source of the user's, by name; a virtual environment is known by its pyvenv.cfg.
_NO_SOURCE = {"__pycache__", "build", "data", "dist", "node_modules", "outputs", "runs", "site-packages", "wandb"}
_MOST_FILES, _LARGEST = 2_000, 2**20


def take(folder: Path, cwd: Path, configs: tuple[Path, ...] = ()) -> Path:
    """Copy the source into a new folder `source-N` below `folder` and return it.

    `cwd` is where the user's own modules lie, `configs` the folders of YAML that were composed from. Raises
    CannotWriteError.
    """
    package = Path(__file__).parents[2]
    number = 1 + max((int(path.name.removeprefix(_PREFIX)) for path in snapshots(folder)), default=0)
    source = folder / f"{_PREFIX}{number}"
    make_folder(source)
    with explained(source):
        _copy(package, source / package.name)
        if (plugins := package.with_name("hydra_plugins")).is_dir():
            _copy(plugins, source / plugins.name)
        for config, copy in zip(configs, config_copies(source, len(configs)), strict=True):
            if config.is_dir():
                shutil.copytree(config, copy, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        for path in _modules(cwd):
            copy = source / _USER_MODULES / path.relative_to(cwd)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    diff = changes()
    if diff:
        write_atomic(source / "diff.patch", diff)
    write_json(source / "snapshot.json", {**provenance(), **gpu()})
    return source


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


def _modules(cwd: Path) -> Iterator[Path]:
    """The user's own Python files below `cwd`; not what lies in hidden folders, environments and data."""
    found = 0
    for here, folders, files in os.walk(cwd):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _NO_SOURCE and name[0] != "." and not (Path(here, name) / "pyvenv.cfg").exists()
        )
        # A checkout of this project is itself in the snapshot already.
        if Path(here) == cwd:
            folders[:] = [name for name in folders if not (cwd / name / "diffsweep" / "sweep").is_dir()]
        for name in sorted(files):
            path = Path(here, name)
            if name.endswith(".py") and not path.is_symlink() and path.stat().st_size <= _LARGEST:
                found += 1
                if found > _MOST_FILES:
                    return
                yield path
