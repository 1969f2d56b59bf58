"""What produced a number: the commit, the versions, the machine; asked without importing any of the packages."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from diffsweep.files import read_json

_PACKAGES = (
    "diffsweep",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "torch-fidelity",
    "numpy",
    "hydra-core",
    "omegaconf",
)
_SECONDS = 5.0


def provenance(folder: str | Path | None = None) -> dict[str, str | bool | None]:
    """A flat dict for `result.json`: git_commit, git_dirty, version_<package>, version_python, host, platform.

    `folder` is inside the git checkout to name; by default the one that holds diffsweep's own code. Outside of a
    checkout, or without git, git_commit and git_dirty are null. git_dirty: tracked files differ from the commit. A copy
    of the code that a sweep runs from (see `snapshot`) is the commit that it was copied from.
    """
    copied = read_json(Path(__file__).parents[3] / "snapshot.json") if folder is None else None
    if copied is not None:
        commit, dirty = copied.get("git_commit"), copied.get("git_dirty")
    else:
        commit, dirty = _git(str(folder or Path(__file__).parent))
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        **_versions(),
        "version_python": platform.python_version(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


def changes() -> str | None:
    """How the tracked files of the checkout that holds diffsweep's own code differ from its commit; null outside."""
    folder = str(Path(__file__).parent)
    return _ask(folder, "diff", "HEAD") if _git(folder)[1] else None


@lru_cache(maxsize=8)
def _git(folder: str) -> tuple[str | None, bool | None]:
    # A package installed into an environment inside somebody's checkout is no part of that checkout's commit.
    if not _ask(folder, "ls-files", "--", "."):
        return None, None
    status = _ask(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return _ask(folder, "rev-parse", "HEAD"), None
    headers, changes = [], []
    for line in status.splitlines():
        (headers if line.startswith("#") else changes).append(line)
    commits = [line.split()[-1] for line in headers if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None, None
    return commits[0], bool(changes)


def _ask(folder: str, *command: str) -> str | None:
    """The answer of git in `folder`; None if it has none."""
    # A hook of another repository may have set GIT_DIR and the like; and a mere question must not lock the index.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", folder, *command],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@lru_cache(maxsize=1)
def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[f"version_{package.replace('-', '_')}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[f"version_{package.replace('-', '_')}"] = None
    return found
