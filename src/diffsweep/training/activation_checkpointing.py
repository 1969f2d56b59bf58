"""Activation checkpointing: a block's activations are computed again in the backward pass in place of being kept.

It costs a fourth to a third of a step's time and takes the memory of one block in place of that of all of them.
Source: "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from diffsweep.compilation import repeated_blocks
from diffsweep.mistakes import BadValue


def check_blocks(network: nn.Module) -> None:
    """Raise ValueError unless a network has repeated blocks, whose activations can be computed again."""
    if not repeated_blocks(network):
        rule = f"recomputes repeated blocks, and {type(network).__name__} has none: leave it out"
        raise BadValue("trainer.activation_checkpointing", True, rule)


def checkpoint_activations(network: nn.Module) -> None:
    """Have a network, changed in place, recompute activations of its repeated blocks; its weights stay as they are."""
    for block in repeated_blocks(network):
        if not isinstance(block.forward, _Recomputing):
            block.forward = _Recomputing(block.forward)


class _Recomputing:
    """A forward pass that keeps its arguments only, where anything is differentiated."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        functools.update_wrapper(self, forward)

    def __call__(self, *arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*arguments)
        # Dropout draws the same numbers again.
        return checkpoint(self.forward, *arguments, use_reentrant=False)
