"""What an extractor made of a set of samples, in their order: one pass of the network serves every metric.

The samples are divided into consecutive blocks of equal size. A metric is measured again without each of them, which
tells how far chance moves it (see `interval`); sample i lies in the same block in every cell, so that differences
between cells can be told the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCKS = 20


@dataclass(frozen=True, eq=False)
class Features:
    """Outputs of an extractor for n samples.

    Attributes:
        outputs: by name, each float32 (n, d); `features` is always there.
        labels: int64 (n,), or None: of real samples what they show, of drawn ones what they were asked to show.
    """

    outputs: Mapping[str, Tensor]
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {len(output) for output in self.outputs.values()}
        assert "features" in self.outputs, list(self.outputs)
        assert lengths == {len(self) if self.labels is None else len(self.labels)}, lengths

    def __len__(self) -> int:
        return len(self.outputs["features"])

    def __getitem__(self, output: str) -> Tensor:
        """An output by name, float32 (n, d)."""
        return self.outputs[output]

    @property
    def blocks(self) -> list[Tensor]:
        """Numbers of the samples in each block, at most `BLOCKS` of them: fewer if there are fewer than 2 a block."""
        return list(torch.arange(len(self)).tensor_split(max(2, min(BLOCKS, len(self) // 2))))

    def take(self, numbers: Tensor) -> Features:
        """The samples of these numbers (int64 (m,)), or where a mask (bool (n,)) says so, in that order."""
        numbers = numbers.to(self["features"].device)
        labels = None if self.labels is None else self.labels[numbers.to(self.labels.device)]
        return Features({name: output[numbers] for name, output in self.outputs.items()}, labels)

    def without(self, block: int | None) -> Features:
        """All samples but those of a block; all of them for None."""
        if block is None:
            return self
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[self.blocks[block]] = False
        return self.take(kept)

    def to(self, device: torch.device | str) -> Features:
        """The same on another device; labels stay on the CPU."""
        return Features({name: output.to(device) for name, output in self.outputs.items()}, self.labels)

    @classmethod
    def collect(cls, batches: Iterable[Mapping[str, Tensor]], labels: Tensor | None, wanted: Iterable[str]) -> Features:
        """The wanted outputs of all batches, one after the other, on the CPU.

        Raises:
            ValueError: when there is no batch at all.
        """
        names = sorted({"features", *wanted})
        kept: dict[str, list[Tensor]] = {name: [] for name in names}
        for batch in batches:
            for name in names:
                kept[name].append(batch[name].cpu())
        if not kept["features"]:
            raise ValueError("there are no samples to score")
        return cls({name: torch.cat(parts) for name, parts in kept.items()}, labels)
