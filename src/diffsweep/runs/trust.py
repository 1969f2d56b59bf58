"""Which classes the config of a runs folder may name: a folder of somebody else is data and must not choose what runs.

To rebuild a model is to import and call what `_target_` names in its config.yaml. That is done for the parts of this
package, for networks and optimizers of torch, and for what the user's own configuration names: the YAML files of conf/
in the working folder, of `--config-dir`, and those that the running program was composed from. Anything else needs the
user's word (`--trust`).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffsweep.former_names import with_current_targets

# Folders of this package that have parts of a run, and packages of torch that have networks and optimizers.
_PARTS = tuple(
    f"diffsweep.{folder}."
    for folder in (
        "autoencoders",
        "backbones",
        "conditioners",
        "data",
        "diffusion",
        "evaluation",
        "interop",
        "scoring",
        "training",
    )
)
_TORCH = ("torch.nn.", "torch.optim.")

# Of a config: what is not built where a model is rebuilt.
_NOT_BUILT = ("hydra", "logger")

_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
_IN_YAML = re.compile(r"""_target_['"]?\s*:\s*['"]?([\w.]+)""")
_ENVIRONMENT = re.compile(r"\$\{oc\.env:[^${}]*\}")


@dataclass(frozen=True)
class _Trust:
    """`folders`: of the user's own YAML files; `everything`: whether any `_target_` may be imported."""

    folders: tuple[Path, ...] = (Path("conf"),)
    everything: bool = False


_CONF_ONLY = _Trust()
_trust: ContextVar[_Trust] = ContextVar("trust", default=_CONF_ONLY)


@contextmanager
def trusting(*folders: str | Path, everything: bool = False) -> Iterator[None]:
    """Inside of the block the YAML files of `folders` are the user's own too; with `everything` nothing is refused."""
    before = _trust.get()
    token = _trust.set(_Trust((*before.folders, *map(Path, folders)), before.everything or everything))
    try:
        yield
    finally:
        _trust.reset(token)


def check_targets(config: DictConfig, file: Path, own: DictConfig | None = None) -> None:
    """Refuse a config that was read from a runs folder if building it might run somebody else's choice of code.

    Args:
        config: As it was read, not resolved.
        file: Where from.
        own: A config of the user's own, whose classes are trusted as well.

    Raises:
        ValueError: naming the key, the class, and how to allow it.
    """
    if _trust.get().everything:
        return
    plain: Any = OmegaConf.to_container(config, resolve=False)
    built = {key: value for key, value in plain.items() if key not in _NOT_BUILT}
    foreign: list[tuple[str, str]] = []
    for key, text in _texts(with_current_targets(built)):
        if key.rpartition(".")[2] == "_target_" and not _is_part(text):
            foreign.append((key, text))
        elif "${" in _ENVIRONMENT.sub("", text):
            raise ValueError(f"{file}: {key}={text} is no value that a run has recorded: the file was altered")
    # Only now, for reading all YAML files takes a moment.
    known = _own_targets(own) if foreign else set()
    for key, target in foreign:
        if target not in known:
            raise ValueError(
                f"{file} asks for {key}={target}, which is no part of diffsweep or torch, nor named in your conf/: "
                "sampling would import and run it; if the code is yours or you trust it, --trust (trust=True) allows it"
            )


def _texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text in plain containers."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for key, below in node.items():
            yield from _texts(below, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, below in enumerate(node):
            yield from _texts(below, f"{path}.{index}")


def _is_part(target: str) -> bool:
    """Whether a name is that of a class of ours or torch's that does no more than to describe a part of a run.

    A name such as torch.os.system leads, through a module that torch has imported, to something else.
    """
    if not _NAME.fullmatch(target) or not target.startswith((*_PARTS, *_TORCH)):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    home = f"{getattr(found, '__module__', '')}."
    if inspect.isclass(found):
        return home.startswith((*_PARTS, *_TORCH))
    # A function that makes a part says so; others may write files.
    made = str(getattr(found, "__annotations__", {}).get("return", ""))
    last = made.partition("[")[0].rpartition(".")[2]
    return inspect.isfunction(found) and home.startswith(_PARTS) and last[:1].isupper() and last != "None"


def _own_targets(own: DictConfig | None) -> set[str]:
    """Every `_target_` that the user's own configuration names."""
    texts = _texts(OmegaConf.to_container(own, resolve=False)) if own is not None else ()
    named = {text for key, text in texts if key.rpartition(".")[2] == "_target_"}
    for path in _yaml_files({*_trust.get().folders, *_composed_from()}):
        try:
            named |= set(_IN_YAML.findall(path.read_text(encoding="utf-8", errors="replace")))
        except OSError:
            continue
    return named


def _yaml_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from folder.rglob("*.yaml")


def _composed_from() -> Iterator[Path]:
    """The folders of YAML files that the running program was composed from."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        for source in HydraConfig.get().runtime.config_sources:
            if source.schema == "file" and source.path:
                yield Path(source.path)
