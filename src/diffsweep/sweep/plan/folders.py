"""Folders of runs and names of sweeps, refused where they cannot be: not found out after a training."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffsweep.mistakes import spell

# Data may lie where only others write.
_WRITABLE = ("runs", "cache")
_FOLDERS = (*_WRITABLE, "data")
# `diffsweep status last` is about the newest sweep.
_LAST = "last"


def runs_folder(config: Mapping[str, Any]) -> Path:
    """The folder of runs of a config. Raises ValueError, in one line, if it has no value."""
    return Path(str(config["paths"]["runs"]))


def sweep_name(config: Mapping[str, Any]) -> str | None:
    """What a config calls its sweep, `sweep.name`; None if nothing. Raises ValueError if it cannot name a folder."""
    node = config.get("sweep")
    if not isinstance(node, Mapping) and node is not None:
        raise ValueError(
            f"sweep={spell(node)} is no name: sweep.name=NAME names a sweep, and +sweeps=NAME runs a study of sweeps/"
        )
    name = (node or {}).get("name")
    return None if name is None else valid_name(name, "sweep.name")


def valid_name(name: object, key: str) -> str:
    """The name at `key`, which is to name a folder. Raises ValueError if it cannot, or is what commands call `last`."""
    text = spell(name)
    if not isinstance(name, (str, int)) or isinstance(name, bool) or not re.fullmatch(r"\w[\w.+-]{0,99}", text):
        raise ValueError(f"{key}={text} must be letters, digits and . _ + - only, at most 100: it names a folder")
    if text == _LAST:
        raise ValueError(f"{key}={text} means the newest sweep in commands: choose another name")
    return text


def refuse_impossible_folders(paths: Mapping[str, Any]) -> None:
    """Raise ValueError, in one line, for a value of the config's `paths` that is no folder and cannot become one."""
    for key in _FOLDERS:
        value = paths.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"paths.{key}={'null' if value is None else value} must name a folder")
        path = Path(value).absolute()
        try:
            there = next(one for one in (path, *path.parents) if one.exists())
            if not there.is_dir():
                raise ValueError(f"paths.{key}={value} cannot be a folder: {there} is a file")
        except OSError as error:
            raise ValueError(f"paths.{key}={value} cannot be a folder: {error.strerror}") from error
        if key in _WRITABLE and not os.access(there, os.W_OK | os.X_OK):
            read_only = os.statvfs(there).f_flag & os.ST_RDONLY
            reason = "is on a read-only file system" if read_only else "is not yours to write to"
            raise ValueError(f"paths.{key}={value} cannot be written: {there} {reason}")
