"""The overrides of a run as one line of a result, and as the words that they were."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any


def joined(overrides: Iterable[str]) -> str:
    """The words as they could be typed in a shell; `split` is its inverse."""
    return shlex.join(overrides)


def split(text: str) -> list[str]:
    """The words of a line that `joined` gave; results of version 0.1 have them joined by spaces, without quotes."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if shlex.join(words) == text:
        return words
    return [word for word in re.split(r"\s+(?=~|\+{0,2}[A-Za-z_][\w./@:-]*=)", text.strip()) if word]


def option_folders(hydra: Any) -> list[str]:
    """The words of a command line that say where options lie, out of Hydra's own node: a command needs them again."""
    sources: Iterable[Mapping[str, str]] = hydra.get("runtime", {}).get("config_sources", ())
    typed: Any = hydra.get("overrides", {}).get("hydra", ())
    if not isinstance(typed, (list, tuple)):
        from omegaconf import OmegaConf

        # As typed: an interpolation in one of them is about another place.
        typed = OmegaConf.to_container(typed, resolve=False)
    folders = [f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"]
    return [*folders, *(word for word in typed if word.startswith("hydra.searchpath="))]
