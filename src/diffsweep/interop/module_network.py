"""Any module of torch as a foreign network, called with (x, level input) and, if it is told any, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from diffsweep.mistakes import BadValue, whole


class ModuleNetwork(nn.Module):
    """A user's own network.

    Args:
        module: Called as module(x, level) or module(x, level, labels). Its answer is a tensor of x's shape, or begins
            with one along the channels; the first of a tuple counts, and the attribute `sample` of an object.
        classes: How many labels it is told; 0 for none.
        absent: The label that means "no label"; null if there is none.
        keyword: Name of the argument for labels; null passes them third.
        shape: (channels, height, width) of its data; null if any will do.

    Raises:
        ValueError: for what is no module, or numbers out of range.
    """

    def __init__(
        self,
        module: nn.Module,
        classes: int = 0,
        absent: int | None = None,
        keyword: str | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise BadValue("module", type(module).__name__, "must be a torch.nn.Module")
        whole("classes", classes, 0)
        if absent is not None:
            whole("absent", absent, 0)
        self.model = module
        self.classes = classes
        self.absent = absent
        self.keyword = keyword
        self.shape: tuple[int | None, ...] | None = tuple(shape) if shape is not None else None

    def forward(self, x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """The module's own output, of `x`'s shape."""
        if not self.classes or labels is None:
            y: Any = self.model(x, level)
        elif self.keyword is None:
            y = self.model(x, level, labels)
        else:
            y = self.model(x, level, **{self.keyword: labels})
        y = y[0] if isinstance(y, tuple) else getattr(y, "sample", y)
        return y[:, : x.shape[1]]
