"""The folder in which the user works: which YAML files count there, and how a run is started there.

The options of this package lie in conf/ at the top of its repository, which the wheel carries as diffsweep/conf. A
clone's own conf/, with its config.yaml, takes their place; a conf/ without config.yaml adds to them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

# In the working folder.
_CONF, _TRAIN = Path("conf"), Path("train.py")
_MAIN = "config.yaml"


def main_conf() -> Path:
    """The folder of the main config, absolute: conf/ of the working folder if it is a whole one, else the package's."""
    return _CONF.absolute() if (_CONF / _MAIN).is_file() else _carried("conf")


def added_conf() -> Path | None:
    """The user's own conf/ in the working folder, absolute, if it adds to the main one; None if there is none."""
    return _CONF.absolute() if _CONF.is_dir() and not (_CONF / _MAIN).is_file() else None


def option_folders(own: Path | None = None) -> list[Path]:
    """The folders of options that count, in the order in which Hydra searches them.

    Args:
        own: that of --config-dir.

    Raises:
        ValueError: for one that is no folder.
    """
    if own is not None and not own.is_dir():
        raise ValueError(f"--config-dir {own} is no folder")
    return [folder for folder in (main_conf(), added_conf(), own) if folder is not None]


def with_joined_folders(words: Iterable[str]) -> list[str]:
    """The words of a command line with every folder of options as one word, `--config-dir=DIR`."""
    joined: list[str] = []
    rest = iter(words)
    for word in rest:
        option, mark, folder = word.partition("=")
        if option in ("--config-dir", "-cd"):
            word = f"--config-dir={folder if mark else next(rest, '')}"
        joined.append(word)
    return joined


def template() -> Path:
    """The folder that `diffsweep init` copies."""
    return _carried("template")


def train_command(*words: str) -> str:
    """The line that starts a run from the working folder: `python train.py` in a clone, else `diffsweep train`.

    Args:
        words: overrides, quoted here for a shell.
    """
    in_clone = _TRAIN.is_file() and (_CONF / _MAIN).is_file()
    return shlex.join([*(["python", "train.py"] if in_clone else ["diffsweep", "train"]), *words])


def _carried(name: str) -> Path:
    """A folder of the repository that the wheel carries inside of the package."""
    package = Path(__file__).resolve().parent
    # In the installed package, or in the clone that an editable installation is of.
    for folder in (package / name, package.parents[1] / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{package / name} is missing: install diffsweep again")
