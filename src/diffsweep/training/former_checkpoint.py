"""Checkpoints of version 0.1, whose networks had the table of labels in themselves, under the names of today."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from diffsweep.conditioners.conditioned import FORMER_TABLE, current_name

_NETWORK = "denoiser.backbone."


def with_current_names(
    checkpoint: dict[str, Any],
    module: nn.Module,
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    """Rename the weights of a checkpoint, and put the optimizer's state in the order of today; one of today is left.

    Args:
        checkpoint: Changed in place: the module's state, the callbacks' and the optimizer's.
        module: That is to go on from it.
        optimizer: Of it, as it is made anew: which of its groups a parameter is in does not change.
    """
    former = checkpoint["state_dict"]
    if f"{_NETWORK}{FORMER_TABLE}" not in former:
        return
    parameters = dict(module.named_parameters())
    # As they were registered then.
    order = [name for name in map(_current, former) if name in parameters]
    made = optimizer(module.parameters())
    names = {id(value): name for name, value in parameters.items()}
    groups = [[names[id(value)] for value in group["params"]] for group in made.param_groups]
    then = [name for group in groups for name in sorted(group, key=order.index)]
    now = {name: number for number, name in enumerate(name for group in groups for name in group)}
    for state in checkpoint["optimizer_states"]:
        state["state"] = {now[then[number]]: value for number, value in state["state"].items()}
    for key, value in checkpoint.items():
        if key != "optimizer_states":
            checkpoint[key] = _renamed(value)


def _current(name: str) -> str:
    prefix = _NETWORK if name.startswith(_NETWORK) else ""
    return prefix + current_name(name.removeprefix(prefix))


def _renamed(value: Any) -> Any:
    """A copy of nested dictionaries in which those of weights have the names of today."""
    if not isinstance(value, dict):
        return value
    if f"{_NETWORK}{FORMER_TABLE}" in value:
        return {_current(name) if name.startswith(_NETWORK) else name: one for name, one in value.items()}
    if FORMER_TABLE in value:
        return {_current(name): one for name, one in value.items()}
    return {name: _renamed(one) for name, one in value.items()}
