"""Gradients through a denoiser for samplers that run without them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def with_gradient(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
    """(value, gradient of the sum of the scalars): for ``function(x) -> (value, scalars)``, scalars of shape (N,).

    Works under ``torch.no_grad`` and ``torch.inference_mode``; tensors that the function closes over and saves for
    the gradient must not have been made in inference mode (``usable`` copies those that were).
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value, scalars = function(x)
        (gradient,) = torch.autograd.grad(scalars.sum(), x)
    return value.detach(), gradient


def usable(x: Tensor) -> Tensor:
    """x itself, or a copy if it was made in inference mode, which autograd refuses."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()
