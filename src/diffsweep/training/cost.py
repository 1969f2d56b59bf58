"""What a network costs: its parameters, the floating-point operations of a call, and the memory of a training step.

They are counted on tensors without numbers, so that even a large network is counted in a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from diffsweep.diffusion.condition import Condition


def parameters(network: nn.Module) -> int:
    """How many numbers of the network are trained."""
    return sum(weight.numel() for weight in network.parameters())


def call_flops(backbone: nn.Module, shape: Sequence[int], condition: Condition | None = None) -> int | None:
    """Floating-point operations of a call for one example, two for each multiplication with its addition.

    Matrix products, convolutions and attention are counted, as by torch's `FlopCounterMode`; a training step takes
    three times as many for each example of the batch.

    Args:
        backbone: The network.
        shape: Of an example as the network is shown it.
        condition: Of one example, what it is told.

    Returns:
        The number; None for a network that cannot be run without numbers.
    """
    shell = {name: value.to("meta") for name, value in [*backbone.named_parameters(), *backbone.named_buffers()]}
    x, logsnr = torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta")
    told = None if condition is None else condition.to("meta")
    was_training = backbone.training
    try:
        # A network may change its weights while it is trained.
        backbone.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(backbone, shell, (x, logsnr, told))
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
    finally:
        backbone.train(was_training)
    return counter.get_total_flops()


def activation_bytes(forward: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """How many bytes a backward pass needs of what a forward pass has computed, besides the weights.

    A step takes these, a gradient for each weight, and what the optimizer and the averages keep: with Adam and one
    average five times the weights in all, themselves included.

    Args:
        forward: What is differentiated; on the device "meta" nothing is computed.
        weights: Which do not count.
    """
    own = {weight.untyped_storage()._cdata for weight in weights}
    kept: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        # Held, so that no two of them have one id.
        held.append(x)
        kept[storage._cdata] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        # Held too, so that its graph lives until all is counted.
        result = forward()
    del result
    return sum(size for storage, size in kept.items() if storage not in own)
