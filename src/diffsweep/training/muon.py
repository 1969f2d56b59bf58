"""Muon: every weight matrix moves by its momentum's nearest semi-orthogonal matrix, U V^T of the SVD.

All directions of a matrix then move alike, which small networks with few steps gain most from. The orthogonal factor
comes from five Newton-Schulz steps; a convolution's weight counts as the matrix (out, in x kernel). Vectors (biases,
norms) are trained by Adam. torch.optim.Muon takes matrices only and orthogonalises in bfloat16, one at a time, which
a CPU is slow at; here equal shapes go through one batched product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from diffsweep.mistakes import BadValue, share


class Muon(torch.optim.Optimizer):
    """Muon (K. Jordan et al., 2024; "Muon is Scalable for LLM Training", arXiv 2502.16982, eq. 1), Adam for vectors.

    Args:
        params: Parameters; those of two or more dimensions are matrices, the rest vectors.
        lr: Step length of matrices: the root mean square of a square matrix' update is about lr / sqrt(size).
        momentum: Of the matrices' gradients, Nesterov's.
        vector_lr: Adam's learning rate for vectors.
        betas: Adam's.

    Raises:
        ValueError: for a learning rate that is not above 0, or a momentum or beta outside [0, 1).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        vector_lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        for key, value in (("lr", lr), ("vector_lr", vector_lr)):
            if not value > 0:
                raise BadValue(key, value, "must be above 0")
        for key, value in (("momentum", momentum), ("betas", betas[0]), ("betas", betas[1])):
            share(key, value, one=False)
        every = list(params)
        groups = [
            {"params": [p for p in every if p.ndim >= 2], "lr": lr, "matrices": True},
            {"params": [p for p in every if p.ndim < 2], "lr": vector_lr, "matrices": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"momentum": momentum, "betas": tuple(betas)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._matrices if group["matrices"] else self._vectors)(params, group)
        return loss

    def _matrices(self, params: list[Tensor], group: dict[str, Any]) -> None:
        same_shape: dict[tuple[torch.Size, torch.device], list[Tensor]] = {}
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            assert p.grad is not None
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            same_shape.setdefault((p.shape, p.device), []).append(p)
        for alike in same_shape.values():
            ahead = [torch.lerp(p.grad, self.state[p]["momentum"], group["momentum"]) for p in alike]  # type: ignore[arg-type]
            updates = orthogonal(torch.stack(ahead).flatten(2))
            scale = group["lr"] * max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
            for p, update in zip(alike, updates, strict=True):
                p.add_(update.view_as(p), alpha=-scale)

    def _vectors(self, params: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for p in params:
            state = self.state[p]
            if not state:
                state.update(mean=torch.zeros_like(p), square=torch.zeros_like(p), steps=0)
            assert p.grad is not None
            state["steps"] += 1
            state["mean"].lerp_(p.grad, 1 - first)
            state["square"].lerp_(p.grad.square(), 1 - second)
            scale = group["lr"] / (1 - first ** state["steps"])
            root = (state["square"] / (1 - second ** state["steps"])).sqrt_().add_(1e-8)
            p.addcdiv_(state["mean"], root, value=-scale)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of each matrix' SVD, (N, rows, columns): singular values end between about 0.7 and 1.2.

    The quintic's coefficients are K. Jordan's, chosen for the steepest slope at zero.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
