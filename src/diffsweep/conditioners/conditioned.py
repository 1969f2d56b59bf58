"""A network together with what takes in its conditions: (x, logsnr, condition) -> x, as every backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffsweep.backbones.controllable import Hears
from diffsweep.backbones.doors import Embeddings, HasDoors
from diffsweep.conditioners.conditioner import Conditioner
from diffsweep.data.examples import Examples
from diffsweep.diffusion.condition import Condition, Entry


@runtime_checkable
class ChecksCondition(Protocol):
    """A network that says itself whether it can be told a condition."""

    def check_condition(self, condition: Condition | None) -> None:
        """Raise ValueError unless it can be called with such a condition of two examples."""
        ...


class Conditioned(nn.Module):
    """A network with doors, and for each entry of a condition what brings it to one of them.

    Args:
        backbone: The network.
        conditioners: By the names of their entries.

    Raises:
        ValueError: if the network lacks a door.
    """

    def __init__(self, backbone: nn.Module, conditioners: Mapping[str, Conditioner]) -> None:
        super().__init__()
        assert isinstance(backbone, HasDoors)
        self.backbone = backbone
        self.conditioners = nn.ModuleDict({name: one.module(backbone.doors) for name, one in conditioners.items()})
        # Values, not modules: they hold no weights.
        self._blank = {name: one.blank(1) for name, one in conditioners.items()}
        for name in ("inputs", "outputs"):
            if hasattr(backbone, name):
                setattr(self, name, getattr(backbone, name))
        self.register_load_state_dict_pre_hook(_with_current_names)

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        condition: Condition | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """As the network; without a condition, or without one of its entries, it is told nothing of that.

        `residuals` are passed on to a network that is `Controllable`.
        """
        if isinstance(condition, Tensor):
            raise ValueError("a condition says what it is: Condition.of(label=labels) in the place of labels")
        n, parts = len(x), []
        for name, module in self.conditioners.items():
            if condition is not None and name in condition:
                entry = condition[name]
            else:
                entry = self._blank[name].map(lambda value: value.to(x.device).expand(n, *value.shape[1:]))
            parts.append(module(entry))
        embeddings = Embeddings.together(parts)
        more = {"condition": condition} if isinstance(self.backbone, Hears) else {}
        return self.backbone(x, logsnr, embeddings, *([] if residuals is None else [residuals]), **more)


def conditioned(backbone: nn.Module, conditioners: Mapping[str, Conditioner]) -> nn.Module:
    """The network that is told what the conditioners read; the backbone itself where there are none.

    One without doors is given the condition as it is.

    Raises:
        ValueError: for a network that cannot be told so.
    """
    if isinstance(backbone, ChecksCondition):
        backbone.check_condition(example_condition(conditioners, 2))
    if not conditioners or not isinstance(backbone, HasDoors):
        return backbone
    return Conditioned(backbone, conditioners)


def read_condition(conditioners: Mapping[str, Conditioner], examples: Examples) -> Condition | None:
    """What examples are told, where they are; None without conditioners. Raises ValueError for data that lack it."""
    return Condition({name: one.read(examples) for name, one in conditioners.items()}) if conditioners else None


def example_condition(conditioners: Mapping[str, Conditioner], n: int) -> Condition | None:
    """A condition of n examples for trying a network: values of zero, and what may be left out is, of every second."""
    if not conditioners:
        return None
    first, entries = torch.arange(n) % 2 == 0, {}
    for name, one in conditioners.items():
        entry = one.blank(n)
        entries[name] = Entry(entry.value, first if one.drop else torch.ones_like(first), entry.mask)
    return Condition(entries)


# Of a network of version 0.1, which had the table of labels in itself.
FORMER_TABLE = "conditioning.labels.weight"


def current_name(former: str) -> str:
    """Of a weight of a network of version 0.1, today's name in a `Conditioned`."""
    return "conditioners.label.table.weight" if former == FORMER_TABLE else f"backbone.{former}"


def _with_current_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights of a model of version 0.1, whose network had the table of labels in itself, under the names of today."""
    if f"{prefix}{FORMER_TABLE}" not in state:
        return
    for name in [name for name in state if name.startswith(prefix)]:
        value = state.pop(name)
        state[prefix + current_name(name.removeprefix(prefix))] = value
