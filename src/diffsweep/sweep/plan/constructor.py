"""The parameters that a `_target_` takes, and what its docstring says of them, read from its source.

What takes a second to import is not imported.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeAlias

_Node: TypeAlias = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_Found: TypeAlias = "tuple[_Module, _Node]"

# These leave the parameters of a function as they are.
_HARMLESS = (
    "cache",
    "lru_cache",
    "no_grad",
    "inference_mode",
    "contextmanager",
    "staticmethod",
    "classmethod",
    "final",
)
# Bases without parameters of their own.
_BARE = ("object", "Protocol", "ABC", "Generic", "Exception", "ValueError", "Callback")
_DEPTH = 20


@dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor.

    Attributes:
        name: as it is called.
        annotation: its type as the source spells it; empty if it has none.
        meaning: the entry of the docstring, in one line; empty if there is none.
    """

    name: str
    annotation: str = ""
    meaning: str = ""


class _Unknown(Exception):
    """The source does not tell, or any keyword goes."""


_UNREADABLE = (OSError, SyntaxError, ValueError, ImportError, RecursionError, _Unknown)


@lru_cache(None)
def parameters(target: str) -> frozenset[str] | None:
    """Names of the parameters of the class or function that a dotted path names.

    None if it takes any keyword, or if the source does not tell.
    """
    with suppress(*_UNREADABLE):
        found = _located(target)
        if found is not None:
            return frozenset(one.name for one in _parameters(*found))
    return None


@lru_cache(None)
def documentation(target: str) -> tuple[str, dict[str, Parameter]]:
    """The first sentence of the docstring of what a dotted path names, and its parameters by name.

    What the source does not tell is empty, or missing.
    """
    known: dict[str, Parameter] = {}
    with suppress(*_UNREADABLE):
        found = _located(target)
        if found is None:
            return "", known
        doc = ast.get_docstring(found[1]) or ""
        with suppress(*_UNREADABLE):
            for one in _parameters(*found):
                known[one.name] = one
        # What a class says itself counts more than what its base says.
        for name, meaning in _entries(doc).items():
            if name in known and not (known[name].meaning and meaning.startswith("See `")):
                known[name] = replace(known[name], meaning=meaning)
        return " ".join(doc.partition("\n\n")[0].split()), known
    return "", known


def _entries(doc: str) -> dict[str, str]:
    """What the sections Args and Attributes of a docstring say, by name."""
    said: dict[str, list[str]] = {}
    section, names = False, list[str]()
    for line in inspect.cleandoc(doc).splitlines():
        entry = re.fullmatch(r" {4}(\*{0,2}\w+(?:, \w+)*)(?: \([^)]*\))?: *(.*)", line)
        if line and not line.startswith(" "):
            section, names = line in ("Args:", "Attributes:"), []
        elif section and entry:
            names = entry[1].replace("*", "").split(", ")
            said |= {name: [entry[2]] for name in names}
        elif section and line.strip():
            for name in names:
                said[name].append(line.strip())
    return {name: " ".join(words).replace("``", "`") for name, words in said.items()}


class _Module:
    """One parsed source file: `names` maps what is bound at its top to a definition or to where it comes from."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        self.names: dict[str, _Node | str] = {}
        self.stars: list[str] = []
        self._read(ast.parse(file.read_bytes()).body)

    def _read(self, body: Iterable[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                self.names[node.name] = node
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self.names[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                base = self.package.split(".")[: len(self.package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    if alias.name == "*":
                        self.stars.append(source)
                    else:
                        self.names[alias.asname or alias.name] = f"{source}.{alias.name}"
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                if isinstance(node.value, ast.Name):
                    self.names[node.targets[0].id] = f"{self.name}.{node.value.id}"
            elif isinstance(node, (ast.If, ast.Try)):
                self._read([*node.body, *node.orelse])


@lru_cache(None)
def _module(name: str) -> _Module | None:
    file = _file(name)
    return _Module(name, file) if file is not None else None


@lru_cache(None)
def _file(name: str) -> Path | None:
    """The source of a module, found without importing the packages that it is in."""
    top, *below = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for part in below:
        file, places = None, [place / part for place in places]
        for place in places:
            for candidate in (place / "__init__.py", place.with_suffix(".py")):
                if file is None and candidate.is_file():
                    file = candidate
    return file if not below or file is not None else None


def _located(target: str, depth: int = 0) -> _Found | None:
    """The definition that a dotted path leads to, through the imports of the modules on the way."""
    if depth > _DEPTH:
        return None
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:length]))
        if module is not None:
            return _in_module(module, parts[length:], depth)
    return None


def _in_module(module: _Module, parts: list[str], depth: int) -> _Found | None:
    name, *attributes = parts
    found = module.names.get(name)
    if found is None:
        for source in module.stars:
            there = _located(".".join([source, *parts]), depth + 1)
            if there is not None:
                return there
        return None
    if isinstance(found, str):
        return _located(".".join([found, *attributes]), depth + 1)
    for attribute in attributes:
        body = found.body if isinstance(found, ast.ClassDef) else []
        inner = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == attribute]
        if not inner:
            raise _Unknown
        (found,) = inner[-1:]
    return module, found


def _parameters(module: _Module, node: _Node, depth: int = 0) -> Iterator[Parameter]:
    if depth > _DEPTH:
        raise _Unknown
    if not isinstance(node, ast.ClassDef):
        if any(_name(one) not in _HARMLESS for one in node.decorator_list):
            raise _Unknown
        yield from _arguments(node, ast.get_docstring(node) or "")
        return
    decorators = [_name(one) for one in node.decorator_list]
    init = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    if init:
        doc = ast.get_docstring(node) or ast.get_docstring(init[-1]) or ""
        yield from islice(_arguments(init[-1], doc), 1, None)
    elif "dataclass" in decorators or any(_name(base) == "NamedTuple" for base in node.bases):
        yield from _fields(module, node, depth)
    elif any(one not in _HARMLESS for one in decorators) or _has(node, "__new__"):
        raise _Unknown
    else:
        yield from _inherited(module, node, depth)


def _inherited(module: _Module, node: ast.ClassDef, depth: int) -> Iterator[Parameter]:
    for base in node.bases:
        if _name(base) in _BARE:
            continue
        found = _in_module(module, _dotted(base).split("."), depth)
        if found is None:
            raise _Unknown
        taken = list(_parameters(*found, depth + 1))
        if taken:
            yield from taken
            return


def _fields(module: _Module, node: ast.ClassDef, depth: int) -> Iterator[Parameter]:
    """Of a dataclass: those of its bases first."""
    entries = _entries(ast.get_docstring(node) or "")
    for base in node.bases:
        if _name(base) not in (*_BARE, "NamedTuple"):
            found = _in_module(module, _dotted(base).split("."), depth)
            if found is None:
                raise _Unknown
            yield from _parameters(*found, depth + 1)
    for one in node.body:
        if not isinstance(one, ast.AnnAssign) or not isinstance(one.target, ast.Name):
            continue
        if isinstance(one.annotation, ast.Subscript) and _name(one.annotation.value) == "ClassVar":
            continue
        made = {key.arg: key.value for key in one.value.keywords} if isinstance(one.value, ast.Call) else {}
        init = made.get("init")
        if not (isinstance(init, ast.Constant) and init.value is False):
            name = one.target.id
            yield Parameter(name, ast.unparse(one.annotation), entries.get(name, ""))


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, doc: str) -> Iterator[Parameter]:
    entries = _entries(doc)
    for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        annotation = ast.unparse(one.annotation) if one.annotation is not None else ""
        yield Parameter(one.arg, annotation, entries.get(one.arg, ""))
    if node.args.kwarg is not None:
        raise _Unknown


def _has(node: ast.ClassDef, name: str) -> bool:
    return any(isinstance(one, ast.FunctionDef) and one.name == name for one in node.body)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _dotted(node.value)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise _Unknown


def _name(node: ast.expr) -> str:
    """The last word of a decorator or base, as `dataclass` of `dataclasses.dataclass(frozen=True)`."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
