"""What is measured of the model itself, beside what is measured of its samples: the likelihood of held-out examples.

A metric of this kind gives one value per example. Its number is their mean; the examples are divided into blocks as
samples are, so that it has the same interval, and its differences are paired by example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffsweep.conditioners.conditioned import read_condition
from diffsweep.conditioners.conditioner import Conditioner
from diffsweep.data.examples import Dataset
from diffsweep.data.modality import POINTS
from diffsweep.diffusion import Condition, Denoise, Denoiser, Schedule
from diffsweep.diffusion.consistency import Consistency
from diffsweep.diffusion.likelihood import log_likelihood
from diffsweep.evaluation.metric import settings
from diffsweep.mistakes import whole
from diffsweep.scoring.estimate import mean_of
from diffsweep.sweep.store.result import Measure


@runtime_checkable
class ModelMetric(Protocol):
    """What is measured of a model.

    Attributes:
        short: name of its number, which lies in no feature space.
        examples: at most so many held-out ones are looked at.
    """

    @property
    def short(self) -> str: ...

    @property
    def examples(self) -> int: ...

    def check(self, dataset: Dataset, diffuser: object, denoiser: Denoiser) -> None:
        """Refuse, before any training, what it cannot be measured of. Raises ValueError."""
        ...

    def each(self, denoise: Denoise, x: Tensor, schedule: Schedule, condition: Condition | None) -> Tensor:
        """Values (N,) of examples.

        Args:
            denoise: the model, without guidance.
            x: as the network sees them, float (N, ...).
            schedule: that the model is trained on.
            condition: what the model is told of them; None for nothing.
        """
        ...


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood under the probability flow, `nll`, in nats an example (see `log_likelihood`).

    Of a conditional model it is that given its condition. Samplers and guidance have no part in it. It costs 4
    evaluations of each example a step, each with as many gradients as there are dimensions.

    Args:
        examples: how many held-out ones at most, a fixed random choice.
        steps: of the fourth-order integration.
        noise_min: noise of the data end: the density is that of data with so much Gaussian noise, which must be small
            against whatever structure the data have.

    Raises:
        ValueError: for fewer than 8 examples, which make no interval.
    """

    examples: int = 500
    steps: int = 100
    noise_min: float = 0.002

    short = "nll"

    def __post_init__(self) -> None:
        # Fewer give no interval.
        whole("examples", self.examples, 8)

    def check(self, dataset: Dataset, diffuser: object, denoiser: Denoiser) -> None:
        """See `ModelMetric.check`: images, consistency models and those that remember have no such likelihood here."""
        if dataset.modality != POINTS:
            raise ValueError(
                f"metric likelihood is for points, not for dataset={dataset.name} of shape {tuple(dataset.shape)}: "
                "leave likelihood out of metric=[...]"
            )
        if isinstance(diffuser, Consistency) or denoiser.memory is not None:
            raise ValueError(
                f"metric likelihood does not go with diffuser={type(diffuser).__name__}: its model is no function that "
                "gives the mean of x0; leave likelihood out of metric=[...]"
            )

    def each(self, denoise: Denoise, x: Tensor, schedule: Schedule, condition: Condition | None) -> Tensor:
        """See `ModelMetric.each`."""
        return -log_likelihood(
            denoise, x, schedule, steps=self.steps, exact=True, noise_min=self.noise_min, condition=condition
        )


def measure_model(
    metrics: Sequence[ModelMetric],
    denoise: Denoise,
    schedule: Schedule,
    dataset: Dataset,
    *,
    conditioners: Mapping[str, Conditioner],
    batch_size: int,
    device: torch.device | str = "cpu",
) -> list[Measure]:
    """What is measured of a model, by examples of the test split: one number a metric.

    Args:
        metrics: Any number of them.
        denoise: On the device.
        schedule: That it is trained on.
        dataset: Of the held-out examples.
        conditioners: What the model is told, by the names of the entries; empty for nothing.
        batch_size: Examples at a time.
        device: Where the model lies.

    Raises:
        ValueError: if the data cannot be read.
    """
    measures = []
    for metric in metrics:
        held_out = dataset.load("test")
        chosen = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[: metric.examples]
        values = []
        for part in chosen.split(batch_size):
            some = held_out.take(part)
            x = dataset.encode(some.x).to(device)
            condition = read_condition(conditioners, some)
            told = None if condition is None else condition.to(device)
            values.append(metric.each(denoise, x, schedule, told).double().cpu())
        measures.append(replace(mean_of(metric.short, torch.cat(values), settings(metric)), examples=len(chosen)))
    return measures
