"""The optimizer of a config: from parameters to torch's, tried before anything is trained."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from omegaconf import DictConfig, OmegaConf

from diffsweep.mistakes import BadValue
from diffsweep.runs.instantiate import make

OptimizerFactory: TypeAlias = Callable[[Any], torch.optim.Optimizer]


def make_optimizer(cfg: DictConfig, key: str, *, fused: bool = False) -> OptimizerFactory:
    """What the config describes at a dotted key; its update is one kernel if `fused` and if it has such a one."""
    made: Any = make(cfg, key)
    fusible = fused and "fused" in inspect.signature(made).parameters
    return functools.partial(made, fused=True) if fusible else made


def tried_optimizer(cfg: DictConfig, key: str, optimizer: OptimizerFactory, parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of parameters. Raises ValueError, with the config's key, if they or its settings do not go."""
    try:
        return optimizer(parameters)
    except BadValue as error:
        raise error.below(key) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key} {settings_line(OmegaConf.select(cfg, key))}: {error}") from error


def settings_line(part: DictConfig) -> str:
    """The settings of a part in one line, for what is the work of all of them."""
    return " ".join(f"{key}={value}" for key, value in part.items() if not str(key).startswith("_"))
