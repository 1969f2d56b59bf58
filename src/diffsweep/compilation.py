"""How a network is compiled by torch.compile: whole, or its repeated blocks only, once for each kind of block."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


def options(cuda_graphs: bool) -> dict[str, Any]:
    """Arguments of torch.compile: with CUDA graphs kernels are recorded once and replayed, which needs fixed shapes."""
    return {"mode": "reduce-overhead"} if cuda_graphs else {}


def compiled(function: Callable[..., Any], *, cuda_graphs: bool = False) -> Callable[..., Any]:
    """The function, compiled at its first call."""
    return torch.compile(function, **options(cuda_graphs))


def compile_network(network: nn.Module, *, blocks: bool = False, cuda_graphs: bool = False) -> None:
    """Have a network compile itself at its first call.

    Args:
        network: Changed in place; its weights and their names are not.
        blocks: Compile its repeated blocks only, which starts sooner: all blocks of a kind with the same shapes share
            what is compiled. A network without any is compiled whole.
        cuda_graphs: See `options`.
    """
    regions = repeated_blocks(network) if blocks else []
    if regions:
        # The blocks of a kind share one list of compiled versions, one for each shape that they meet.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(regions))
    for region in regions or [network]:
        region.compile(**options(cuda_graphs))


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The outermost modules of which there are two or more of a class, those of torch.nn itself left out."""
    kinds = Counter(type(module) for module in network.modules())

    def found(module: nn.Module) -> list[nn.Module]:
        kind = type(module)
        if kinds[kind] > 1 and not kind.__module__.startswith("torch.nn."):
            return [module]
        return [block for child in module.children() for block in found(child)]

    return [block for child in network.children() for block in found(child)]


def keep_compiled(folder: Path) -> None:
    """Let what is compiled from now on be kept in a folder and shared with other processes, unless the user chose one.

    It holds code that is run: it must be one's own.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.absolute()))
