"""The user's own modules that a sweep needs: those that its configs name, what they import, and their packages' files.

A working folder holds much that no run imports, as credentials of an unrelated project: nothing is copied only because
it lies there.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of a package's files other than those that are imported; larger ones are data.
_LARGEST = 2**24
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
# These come with the copy of this package.
_OURS = ("diffsweep", "hydra_plugins")
# Folders that hold no source, where git does not say what does.
_NO_SOURCE = {"__pycache__", "build", "data", "dist", "node_modules", "outputs", "runs", "site-packages", "wandb"}


@dataclass(frozen=True)
class UserModules:
    """Files of the working folder that a sweep's jobs import, or may read beside what they import.

    Attributes:
        files: relative to the working folder, in order.
        left_out: files of the user's own packages that are not copied, for git does not track them, or for their size.
    """

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]


def user_modules(cwd: Path, names: Iterable[str]) -> UserModules:
    """The modules below `cwd` that dotted names lead to, as "mine.Net", with what they import and their packages."""
    imported: dict[Path, None] = {}
    rest = [path for name in sorted(set(names)) for path in _files_of(cwd, name)]
    while rest:
        path = rest.pop()
        if path not in imported:
            imported[path] = None
            rest += [below for name in _imports(cwd, path) for below in _files_of(cwd, name)]
    packages = sorted({path.parts[0] for path in imported if (cwd / path.parts[0] / "__init__.py").is_file()})
    kept, left_out = set(imported), set[Path]()
    for package in packages:
        every = {path.relative_to(cwd) for path in _files_below(cwd / package)}
        tracked = _tracked(cwd, package)
        source = {path for path in every if path.suffix == ".py"} if tracked is None else every & tracked
        source = {path for path in source if (cwd / path).stat().st_size <= _LARGEST}
        kept |= source
        left_out |= every - source
    return UserModules(tuple(sorted(kept)), tuple(sorted(left_out - kept)))


def dotted_names(node: Any) -> Iterator[str]:
    """Every text in plain containers that may be the name of a class or function, as `_target_` holds."""
    if isinstance(node, str):
        if _DOTTED.fullmatch(node):
            yield node
    elif isinstance(node, Mapping):
        for below in node.values():
            yield from dotted_names(below)
    elif isinstance(node, (list, tuple)):
        for below in node:
            yield from dotted_names(below)


def dotted_names_in(text: str) -> Iterator[str]:
    """Every word of a text, as of a YAML file or an override, that may be the name of a class or function."""
    for match in _DOTTED.finditer(text):
        yield match.group()


def _files_of(cwd: Path, name: str) -> Iterator[Path]:
    """The files below `cwd` that importing a dotted name executes; none if it leads elsewhere."""
    parts = name.split(".")
    # The name of a file, as train.py, names no class.
    if parts[0] in _OURS or parts[-1] == "py":
        return
    for count in range(1, len(parts) + 1):
        stem = Path(*parts[:count])
        for path in (stem / "__init__.py", stem.with_suffix(".py")):
            if (cwd / path).is_file():
                yield path


def _imports(cwd: Path, path: Path) -> Iterator[str]:
    """The dotted names that a module imports, also where it does so in words."""
    try:
        tree = ast.parse((cwd / path).read_bytes())
    except (SyntaxError, ValueError, OSError):
        # Whoever imports it says what is wrong with it.
        return
    package = path.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{name.name}" if module else name.name for name in node.names)
        elif isinstance(node, ast.Call) and node.args and _imports_in_words(node.func):
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def _imports_in_words(function: ast.expr) -> bool:
    return ast.unparse(function).rpartition(".")[2] in ("import_module", "__import__")


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name[0] == "." or path.name in _NO_SOURCE or (path.is_symlink() and path.is_dir()):
            continue
        if path.is_dir():
            yield from _files_below(path)
        elif path.is_file():
            yield path


def _tracked(cwd: Path, package: str) -> Set[Path] | None:
    """The files of a package that git tracks, relative to `cwd`; None where there is no repository, or no git."""
    try:
        command = ["git", "-C", str(cwd), "ls-files", "-z", "--", package]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = {Path(name) for name in done.stdout.split("\0") if name}
    return found if done.returncode == 0 and found else None
