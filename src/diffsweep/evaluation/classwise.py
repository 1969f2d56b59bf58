"""The Frechet distance of the samples of each class to real samples of that class.

Where one class is drawn badly, or under another's label, the distance of all together may stay as it is. Source: "cGANs
with Projection Discriminator", arXiv 1802.05637, section 4 (intra FID). A class has few samples, so the bias is large:
compare at equal numbers only, and with the floor.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import leave_out
from diffsweep.evaluation.metric import Numbers, Real
from diffsweep.evaluation.moments import Moments


class Classwise:
    """`fd.within`, the mean over classes, `fd.worst`, the largest, and with few classes each one's, as `fd.class_3`.

    Args:
        listed: up to this many classes, each one's distance is a number of its own.
    """

    short = "fd.within"
    needs = ("features",)

    def __init__(self, listed: int = 20) -> None:
        self.listed = listed

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; no numbers without labels.

        A class without two real samples, or without two drawn ones whatever block is left out, has no number, and then
        there is none of all classes either: over other classes it would not be the same number.
        """
        known = real.features.labels
        if drawn.labels is None or known is None:
            return lambda block: {}
        x, labels, blocks = drawn["features"], drawn.labels.cpu(), drawn.blocks
        features, known = real.features["features"], known.cpu()
        block_of = torch.zeros(len(x), dtype=torch.long)
        for number, block in enumerate(blocks):
            block_of[block] = number
        classes: list[int] = known.unique().tolist()
        enough: dict[int, list[Tensor]] = {}
        for label in classes:
            masks = [block_of[labels == label] == number for number in range(len(blocks))]
            counts = [int(mask.sum()) for mask in masks]
            if (known == label).sum() >= 2 and sum(counts) - max(counts) >= 2:
                enough[label] = masks

        # All at once, each class in its turn: what they are computed from would fill the memory.
        @functools.cache
        def measured(*blocks_out: int | None) -> list[Mapping[str, float]]:
            found: dict[int, list[float]] = {}
            for label, masks in enough.items():
                moments = Moments.of(features[(known == label).to(features.device)])
                distance = leave_out(x[(labels == label).to(x.device)], masks, moments)
                found[label] = [distance(block) for block in blocks_out]
            return [named({label: values[i] for label, values in found.items()}) for i in range(len(blocks_out))]

        def named(found: Mapping[int, float]) -> Mapping[str, float]:
            all_of_them = {"fd.within": sum(found.values()) / len(found), "fd.worst": max(found.values())}
            each = {f"fd.class_{label}": value for label, value in found.items()}
            return (all_of_them if len(found) == len(classes) else {}) | (each if len(classes) <= self.listed else {})

        def numbers(block: int | None) -> Mapping[str, float]:
            return measured(None)[0] if block is None else measured(*range(len(blocks)))[block]

        return numbers if enough else lambda block: {}

    def absence(self, drawn: Features, real: Real) -> str:
        """See `ExplainsAbsence`."""
        if drawn.labels is None:
            return "it is not known which class each sample was to show"
        if real.features.labels is None:
            return "the real samples have no labels"
        return "some class has too few samples, drawn or real, for a distance"
