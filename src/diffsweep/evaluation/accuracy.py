"""How many samples show what they were asked to show, as a classifier of the same labels sees it.

Source: "Classification Accuracy Score for Conditional Generative Models", arXiv 1905.10887, asks the same of real
samples and a classifier that was trained on drawn ones; this is the cheap way round, with a fixed classifier.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.metric import Numbers, Real


class Accuracy:
    """`accuracy`, 0 to 1: larger is better, and what real samples reach (the floor) is the most that means anything.

    There is no number for samples without labels, nor where the classifier does not know the labels of the data, as
    ImageNet's classes are no labels of clothes: it must be right about real samples, the same for every label, at
    least half as far above guessing as it can be.
    """

    short = "accuracy"
    needs = ("logits",)

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`."""
        if drawn.labels is None or not _knows(real.features):
            return lambda block: {}
        right = _right(drawn["logits"], drawn.labels)

        def numbers(block: int | None) -> Mapping[str, float]:
            left = right.sum() if block is None else right.sum() - right[drawn.blocks[block]].sum()
            count = len(right) if block is None else len(right) - len(drawn.blocks[block])
            return {self.short: float(left) / count}

        return numbers

    def absence(self, drawn: Features, real: Real) -> str:
        """See `ExplainsAbsence`."""
        if drawn.labels is None:
            return "it is not known which class each sample was to show"
        return "the classifier of the extractor does not know the labels of the data"


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest logit is that of the label, (n,), on the CPU."""
    return logits.argmax(dim=1).cpu() == labels.cpu()


def _knows(real: Features) -> bool:
    """Whether the logits of real samples tell their labels."""
    if real.labels is None:
        return False
    right = _right(real["logits"], real.labels).double()
    shares = [float(right[real.labels == label].mean()) for label in real.labels.unique()]
    guessing = 1 / real["logits"].shape[1]
    return sum(shares) / len(shares) >= (1 + guessing) / 2
