"""`train.py -m ... --cfg job`: the config of every cell of a sweep is printed, and nothing runs.

Hydra itself shows the config of a single run only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffsweep.messages import print_lines

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

_asked_for: list[bool] = []


def take(words: list[str]) -> list[str]:
    """The words of a command line without `--cfg job`, if they ask for a sweep; `wanted` is true from then on."""
    if not {"-m", "--multirun"} & set(words):
        return words
    for place, word in enumerate(words):
        if word in ("--cfg", "-c") and words[place + 1 : place + 2] == ["job"]:
            _asked_for.append(True)
            return take([*words[:place], *words[place + 2 :]])
        if word in ("--cfg=job", "-cjob"):
            _asked_for.append(True)
            return take([*words[:place], *words[place + 1 :]])
    return [word for word in words if word != "--resolve"] if shows_configs() else words


def shows_configs() -> bool:
    """Whether this process shows configs instead of running anything."""
    return bool(_asked_for)


def show(loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]]) -> None:
    """Print the config of each set of overrides as YAML documents. Errors as of `sweep.plan.compose`."""
    from diffsweep.sweep.plan.compose import compose
    from diffsweep.sweep.plan.unread_keys import refuse_unread
    from diffsweep.sweep.store.environment import Hider

    hide = Hider()
    for cell in compose(loader, master, batch, refuse_unread):
        show_one(cell.overrides, hide(cell.config, cell.environment))


def show_one(overrides: Sequence[str], config: dict[str, Any]) -> None:
    """Print one config as a YAML document that begins with its overrides, in a comment."""
    from omegaconf import OmegaConf

    print_lines(f"--- # {' '.join(overrides)}")
    print_lines(OmegaConf.to_yaml(config).rstrip("\n"))
