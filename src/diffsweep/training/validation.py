"""What evaluations during a training are for: a curve, the best weights kept, an end before time.

A sampler never changes a training, but keeping its best weights does: so they are judged by a sampler of their own, all
settings of which belong to the training, as does the extractor. The number is always the Frechet distance in its
features, of which less is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from diffsweep.diffusion import Sampler
from diffsweep.evaluation.extractor import Extractor
from diffsweep.mistakes import BadValue

KEEP = ("last", "best")


@dataclass(frozen=True)
class Validation:
    """Evaluations of the averaged weights while a training goes on, without guidance.

    Attributes:
        sampler: How samples are drawn.
        extractor: Of their features.
        every: Training steps between evaluations, >= 1; there is always one at the last step.
        samples: How many samples, >= 2.
        batch_size: How many at a time, >= 1.
        seed: Sample seed.
        keep: Which weights the finished training has: "last", or "best" for those of the best evaluation.
        patience: Evaluations in a row without a new best after which training stops, >= 1; None for never.

    Raises:
        ValueError: for another value.
    """

    sampler: Sampler
    extractor: Extractor
    every: int = 300
    samples: int = 200
    batch_size: int = 200
    seed: int = 0
    keep: str = "last"
    patience: int | None = None

    def __post_init__(self) -> None:
        whole = {"every": 1, "samples": 2, "batch_size": 1, "seed": -math.inf}
        for key, least in {**whole, **({} if self.patience is None else {"patience": 1})}.items():
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                also = {"every": " (validation=none turns it off)", "patience": ", or null never to stop"}.get(key, "")
                least_words = "" if math.isinf(least) else f", {least} or more"
                raise BadValue(key, value, f"must be a whole number{least_words}{also}")
        if self.keep not in KEEP:
            raise BadValue("keep", self.keep, f"is unknown: choose one of {', '.join(KEEP)}")


@dataclass
class Best:
    """The best evaluation of a training so far.

    A value that is not finite is never the best one, and patience begins with the first that is: samples of an early
    model may be broken.

    Attributes:
        patience: See `Validation`.
        value: Of the best evaluation; None before there is one.
        step: Training steps that were done at it.
        waited: Evaluations since.
        weights: Its weights, by name, on the CPU; None if they are not wanted.
    """

    patience: int | None
    value: float | None = None
    step: int | None = None
    waited: int = 0
    weights: dict[str, Tensor] | None = field(default=None, repr=False)

    @property
    def over(self) -> bool:
        """Whether patience is."""
        return self.patience is not None and self.waited >= self.patience

    def see(self, value: float, step: int, weights: Mapping[str, Tensor] | None) -> None:
        """Take an evaluation into account, and a copy of its weights if it is the best."""
        if math.isfinite(value) and (self.value is None or value < self.value):
            self.value, self.step, self.waited = value, step, 0
            # Copies: the next step changes the averaged weights in place.
            copied = {name: tensor.detach().cpu().clone() for name, tensor in (weights or {}).items()}
            self.weights = copied or None
        elif self.value is not None:
            self.waited += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {name: getattr(self, name) for name in ("value", "step", "waited", "weights")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)
