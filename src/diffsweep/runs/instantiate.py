"""From a place in a config to the object that it describes, with a user's mistake said in one line."""

from __future__ import annotations

import re
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffsweep.diffusion import Denoiser, Schedule
from diffsweep.diffusion.objective import Objective
from diffsweep.former_names import with_current_targets


def make(cfg: DictConfig, key: str, **kwargs: Any) -> Any:
    """The object that the config describes at a dotted key.

    Raises:
        ValueError: in the words of the object's constructor, or saying which key it does not take, or which class
            cannot be loaded and why.
    """
    try:
        return instantiate(_moved(OmegaConf.select(cfg, key)), **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, OSError)):
            raise cause from None
        if isinstance(cause, TypeError):
            raise ValueError(f"{key}: {cause}") from error
        raise ValueError(_unloaded(error)) from error


def make_denoiser(cfg: DictConfig, dataset: Any, schedule: Schedule, diffuser: Objective) -> Denoiser:
    """The untrained model of a config: a training and whoever reads its weights later must build the same."""
    return diffuser.build(make(cfg, "backbone"), schedule, dataset.sigma_data)


def _moved(node: Any) -> Any:
    """`node` with the paths of today in place of former ones, which a user's own YAML may still name."""
    if not OmegaConf.is_config(node):
        return node
    plain = OmegaConf.to_container(node)
    moved = with_current_targets(plain)
    return node if moved == plain else OmegaConf.create(moved, parent=node._get_parent())


def _unloaded(error: InstantiationException) -> str:
    """Which `_target_` cannot be loaded and why, from the two lines and three exceptions in which Hydra says it."""
    found = re.match(r"Error locating target '(.*?)'(?:.*full_key: (\S+))?", str(error), re.DOTALL)
    if found is None:
        return str(error)
    target, key = found.groups()
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    place = f"{key}._target_" if key else "_target_"
    return f"{place}={target} cannot be loaded: {type(reason).__name__}: {reason}"
