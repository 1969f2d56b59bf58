"""The Frechet distance of the samples of each class to real samples of that class.

Where one class is drawn badly, or under another's label, the distance of all together may stay as it is. Source: "cGANs
with Projection Discriminator", arXiv 1802.05637, section 4 (intra FID). A class has few samples, so the bias is large:
compare at equal numbers only, and with the floor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Moments, double, leave_out
from diffsweep.evaluation.metric import Numbers, Real


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
        x = double(drawn["features"])
        block_of = torch.zeros(len(x), dtype=torch.long)
        for number, block in enumerate(drawn.blocks):
            block_of[block] = number
        labels: list[int] = known.unique().tolist()
        distances: dict[int, list[float]] = {}
        for label in labels:
            mine, theirs = (drawn.labels == label).cpu(), (known == label).cpu()
            masks = [block_of[mine] == number for number in range(len(drawn.blocks))]
            if theirs.sum() < 2 or mine.sum() - max(mask.sum() for mask in masks) < 2:
                continue
            features = real.features["features"]
            moments = Moments.of(features[theirs.to(features.device)])
            # Numbers only: with the moments of every class and block, wide features would fill the memory.
            distance = leave_out(x[mine.to(x.device)], masks, moments)
            distances[label] = [distance(block) for block in (None, *range(len(masks)))]

        def numbers(block: int | None) -> Mapping[str, float]:
            found = {label: values[0 if block is None else 1 + block] for label, values in distances.items()}
            all_of_them = {"fd.within": sum(found.values()) / len(found), "fd.worst": max(found.values())}
            each = {f"fd.class_{label}": value for label, value in found.items()}
            return (all_of_them if len(found) == len(labels) else {}) | (each if len(labels) <= self.listed else {})

        return numbers if distances else lambda block: {}
