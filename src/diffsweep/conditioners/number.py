"""A number that is known of each example, as an age or a temperature: features of it, as of the noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffsweep.backbones.conditioning import fourier
from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.conditioners.conditioner import width_of
from diffsweep.data.examples import Examples
from diffsweep.diffusion.condition import Entry
from diffsweep.mistakes import above, alternatives, share

_FEATURES = 64
# Of a standard deviation: what `fourier` takes reaches from -20 to 20.
_STRETCH = 5.0


@dataclass(frozen=True)
class Number:
    """Tells a model a number, as a vector.

    Args:
        entry: Name of the entry of the dataset's examples that holds it, one number each.
        mean: About that of the data; subtracted.
        std: About the standard deviation of the data, > 0; what lies 4 of them from the mean is the farthest that is
            told from its neighbours.
        drop: Share of the examples that are trained without it, in [0, 1).

    Raises:
        ValueError: for a value out of range.
    """

    entry: str
    mean: float = 0.0
    std: float = 1.0
    drop: float = 0.1

    def __post_init__(self) -> None:
        above("std", self.std)
        share("drop", self.drop, one=False)

    def read(self, examples: Examples) -> Entry:
        """See `Conditioner.read`."""
        value = examples.entries.get(self.entry)
        if not isinstance(value, Tensor) or value.shape != (len(examples),):
            known = [name for name, one in examples.entries.items() if isinstance(one, Tensor)]
            has = f"choose {alternatives(sorted(known))}" if known else "they have none"
            raise ValueError(f"condition.number.entry={self.entry} names no number of these examples: {has}")
        value = value.to(torch.float32)
        # NaN stands for "not known".
        present = value.isfinite()
        return Entry(value.nan_to_num(0.0, 0.0, 0.0), present)

    def blank(self, n: int) -> Entry:
        """See `Conditioner.blank`."""
        return Entry(torch.zeros(n), torch.zeros(n, dtype=torch.bool))

    def module(self, doors: Doors) -> nn.Module:
        """See `Conditioner.module`."""
        return NumberInput(self.mean, self.std, width_of(doors.vector, "vector", "number", doors))


class NumberInput(nn.Module):
    """A perceptron of features of a number, and a vector that stands for "not told"."""

    def __init__(self, mean: float, std: float, width: int) -> None:
        super().__init__()
        self.mean, self.scale = mean, _STRETCH / std
        self.layers = nn.Sequential(nn.Linear(_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.untold = nn.Parameter(torch.zeros(width))

    def forward(self, entry: Entry) -> Embeddings:
        """The vectors (N, width) of an entry with values float (N,)."""
        features = fourier((entry.value - self.mean) * self.scale, _FEATURES).to(self.untold.dtype)
        return Embeddings(vector=torch.where(entry.present[:, None], self.layers(features), self.untold))
