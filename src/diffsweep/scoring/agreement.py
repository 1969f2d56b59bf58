"""How far samples show what they were asked for, by conditions that can be read from samples, as edges."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from diffsweep.conditioners.conditioner import Conditioner, Verifiable
from diffsweep.diffusion.condition import Condition
from diffsweep.evaluation.features import Features
from diffsweep.scoring.estimate import mean_of
from diffsweep.sweep.store.result import Measure


def agreement_names(conditioners: Mapping[str, Conditioner]) -> dict[str, Verifiable]:
    """The conditions that can be read from samples, by the names of their numbers, as agreement_edges."""
    return {f"agreement_{name}": one for name, one in conditioners.items() if isinstance(one, Verifiable)}


def agreements(
    conditioners: Mapping[str, Conditioner], condition: Condition | None, samples: Tensor
) -> dict[str, Tensor]:
    """The agreement of each sample, (N, 1), by the names of the numbers.

    Args:
        conditioners: By the names of their entries.
        condition: That the samples were asked for, on any device; None for nothing.
        samples: As stored, (N, ...).
    """
    if condition is None:
        return {}
    asked = condition.to(samples.device)
    found = {name: (one, asked[name.removeprefix("agreement_")]) for name, one in agreement_names(conditioners).items()}
    return {name: one.agreement(entry, samples)[:, None] for name, (one, entry) in found.items()}


def measure_agreement(conditioners: Mapping[str, Conditioner], drawn: Features) -> list[Measure]:
    """The mean agreement of samples with each condition that can be read from them; that of real pictures is 1."""
    names = agreement_names(conditioners)
    return [mean_of(name, drawn[name][:, 0].double(), one.agreement_by, floor=1.0) for name, one in names.items()]
