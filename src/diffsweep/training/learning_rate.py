"""Courses of the learning rate by the schedulers of torch, as shares of the optimizer's own rates.

A scheduler drives an optimizer that has one parameter and the rate 1; what it makes of that rate multiplies the rates
of all groups of the real one. So a scheduler serves every optimizer, also one of several rates, and a training that
goes on from a checkpoint needs the number of its step only.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping

import torch
from torch.optim.lr_scheduler import LRScheduler

from diffsweep.mistakes import BadValue, number, spell, whole

KEY = "training.decay"
# So many steps are tried before a training, which takes a tenth of a second.
_TRIED = 20_000


class LearningRateDecay:
    """The share of the optimizer's learning rate at each step after the warm-up, by a scheduler of torch.

    Args:
        scheduler: From an optimizer of rate 1 to its scheduler, which looks at nothing but the number of the step.
        steps: Length of the training, for which the scheduler must hold.

    Raises:
        ValueError: if it makes no scheduler, or one that needs more than the number of the step, or a rate below 0.
    """

    def __init__(self, scheduler: Callable[[torch.optim.Optimizer], LRScheduler], steps: int) -> None:
        self.steps = steps
        # SGD with momentum: some schedulers move that too, which the real optimizer does not follow.
        self._optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
        self._factors: list[float] = []
        name = getattr(getattr(scheduler, "func", scheduler), "__name__", "?")
        # torch names none of them in what it raises.
        given: Mapping[str, object] = getattr(scheduler, "keywords", {})
        self._named = f"{name}({', '.join(f'{key}={spell(value)}' for key, value in given.items())})"
        try:
            for key, parameter in inspect.signature(getattr(scheduler, "func", scheduler)).parameters.items():
                # torch's own annotations are text that cannot be evaluated.
                if parameter.annotation in (float, "float") and key in given:
                    number(f"{KEY}.{key}", given[key])
            self._scheduler = scheduler(self._optimizer)
        except BadValue:
            raise
        except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
            raise ValueError(f"{KEY}: {self._named} cannot be made: {' '.join(str(error).split())}") from error
        if not isinstance(self._scheduler, LRScheduler) or isinstance(
            self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
        ):
            raise BadValue(KEY, name, "is no scheduler of torch that needs the number of the step only")
        self._optimizer.step()
        self._factors.append(self._rate())
        self(min(steps, _TRIED) - 1)

    def __call__(self, step: int) -> float:
        """The share at a step, >= 0, the first after the warm-up being 0."""
        while len(self._factors) <= step:
            with warnings.catch_warnings():
                # Of an older form of schedulers inside others.
                warnings.simplefilter("ignore", UserWarning)
                try:
                    self._scheduler.step()
                except ValueError as error:
                    # What has no rate for so many steps keeps its last one: only the step after the last is asked.
                    if len(self._factors) < self.steps:
                        raise ValueError(f"{KEY}: {self._named}: {' '.join(str(error).split())}") from error
                    self._factors.append(self._factors[-1])
                    continue
            self._factors.append(self._rate())
        return self._factors[step]

    def _rate(self) -> float:
        rate = float(self._optimizer.param_groups[0]["lr"])
        if not (math.isfinite(rate) and rate >= 0):
            where = f"{self._named} gives the rate {rate:g} at step {len(self._factors)}"
            raise ValueError(f"{KEY}: {where}: it must be finite, 0 or more")
        return rate


class InverseSquareRoot:
    """1 up to a step, then the square root of that step over the step, as EDM2 decays (arXiv 2312.02696).

    Args:
        constant: Steps at the full rate, >= 1.

    Raises:
        ValueError: for another number.
    """

    def __init__(self, constant: int = 500) -> None:
        whole("constant", constant, 1)
        self.constant = constant

    def __call__(self, step: int) -> float:
        """The share of the rate at a step."""
        return 1 / math.sqrt(max(1.0, step / self.constant))
