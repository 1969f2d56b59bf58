"""Statistics of features that arrive batch by batch, in bounded memory, which can be put aside and taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffsweep.evaluation.moments import Moments


class RunningStatistics:
    """Moments of all examples so far, and the features of a fixed choice of them.

    Args:
        names: of the extractor's outputs that are wanted.
        count: how many examples there will be.
        most: of how many the features are kept; they are chosen at random once and for all.

    Attributes:
        done: how many examples were added.
        chosen: numbers of those whose features are kept, increasing, int64 (m,).
    """

    def __init__(self, names: Sequence[str], count: int, most: int) -> None:
        self.names = list(names)
        self.done = 0
        self.chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values
        self._is_chosen = torch.zeros(count, dtype=torch.bool)
        self._is_chosen[self.chosen] = True
        self._moments: dict[str, Moments] = {}
        self._kept: dict[str, list[Tensor]] = {name: [] for name in self.names}

    def add(self, batch: Mapping[str, Tensor]) -> None:
        """Add the outputs of the next examples, each float32 (n, d)."""
        here = self._is_chosen[self.done : self.done + len(batch["features"])]
        self.done += len(here)
        for name in self.names:
            part, before = Moments.of(batch[name]), self._moments.get(name)
            self._moments[name] = part if before is None else before.merge(part)
            self._kept[name].append(batch[name].cpu()[here])

    def tensors(self) -> dict[str, Tensor]:
        """By output: NAME.kept float32 (m, d), NAME.mean float64 (d,), NAME.cov float64 (d, d), of all so far."""
        found: dict[str, Tensor] = {}
        for name in self.names:
            self._kept[name] = [torch.cat(self._kept[name])]
            found |= {f"{name}.kept": self._kept[name][0]}
            found |= {f"{name}.mean": self._moments[name].mean, f"{name}.cov": self._moments[name].cov}
        return found

    def take_up(self, tensors: Mapping[str, Tensor], done: int) -> None:
        """Go on from what `tensors` gave after `done` examples: all numbers are then those of one go, bit for bit."""
        self.done = done
        for name in self.names:
            self._moments[name] = Moments(tensors[f"{name}.mean"], tensors[f"{name}.cov"], done)
            self._kept[name] = [tensors[f"{name}.kept"]]
