"""The source that the jobs of a sweep run from: a copy, made before the first of them starts.

What is edited while jobs wait in a queue reaches none of them. The copy holds this package, its Hydra plugins, the
configs, the user's own modules of the working folder, and snapshot.json: commit, versions, machine. Jobs find the copy
before what is installed, for it comes first in PYTHONPATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from diffsweep.files import explained, make_folder, write_atomic, write_json
from diffsweep.sweep.store.provenance import changes, provenance

# Folders that hold no source of the user's, by name; a virtual environment is known by its pyvenv.cfg.
_NO_SOURCE = {"__pycache__", "build", "data", "dist", "node_modules", "outputs", "runs", "site-packages", "wandb"}
_MOST_FILES, _LARGEST = 2_000, 2**20


def take(folder: Path, cwd: Path, configs: tuple[Path, ...] = ()) -> Path:
    """Copy the source into a new folder `source-N` below `folder` and return it.

    `cwd` is where the user's own modules lie, `configs` the folders of YAML that were composed from. Raises
    CannotWriteError.
    """
    package = Path(__file__).parents[2]
    number = 1 + max((int(path.name.partition("-")[2]) for path in folder.glob("source-*")), default=0)
    source = folder / f"source-{number}"
    make_folder(source)
    with explained(source):
        _copy(package, source / package.name)
        if (plugins := package.with_name("hydra_plugins")).is_dir():
            _copy(plugins, source / plugins.name)
        for index, config in enumerate(configs):
            if config.is_dir():
                copy = source / "conf" / (str(index) if index else "main")
                shutil.copytree(config, copy, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        for path in _modules(cwd):
            copy = source / "work" / path.relative_to(cwd)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    diff = changes()
    if diff:
        write_atomic(source / "diff.patch", diff)
    write_json(source / "snapshot.json", {**provenance(), **gpu()})
    return source


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
