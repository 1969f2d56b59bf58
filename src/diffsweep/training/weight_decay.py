"""Which weights are decayed: all, or matrices only.

A decay towards zero of a bias, of a norm's scale or of an embedding is no regularisation of what the network computes
from its inputs, so that many recipes leave them out. The decay itself is the optimizer's (AdamW, arXiv 1711.05101).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from diffsweep.mistakes import BadValue


def parameters_to_train(module: nn.Module, decayed: str) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
    """What an optimizer is given: all parameters, or two groups of them, the second without weight decay.

    Args:
        module: Whose parameters.
        decayed: "all" or "matrices"; convolutions are matrices, and a table of embeddings is none.
    """
    if decayed == "all":
        return module.parameters()
    tables = {id(one.weight) for one in module.modules() if isinstance(one, (nn.Embedding, nn.EmbeddingBag))}
    every = list(module.parameters())
    matrices = [weight for weight in every if weight.ndim >= 2 and id(weight) not in tables]
    known = {id(weight) for weight in matrices}
    rest = [weight for weight in every if id(weight) not in known]
    groups = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def check_decays(optimizer: torch.optim.Optimizer, decayed: str) -> None:
    """Raise ValueError for an optimizer without weight decay, of which it is asked to leave some weights out."""
    if not optimizer.defaults.get("weight_decay"):
        has = "weight_decay=0" if "weight_decay" in optimizer.defaults else "no weight_decay"
        rule = f"needs an optimizer that decays weights, and {type(optimizer).__name__} has {has}"
        raise BadValue("training.weight_decay", decayed, f"{rule}: choose optimizer=adamw, or all")
