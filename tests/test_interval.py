"""Intervals are the textbook's where it has one, hold what they should as often as they say, and shrink by pairing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from diffsweep.evaluation.energy import Energy
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.identity import identity
from diffsweep.evaluation.interval import Estimate
from diffsweep.evaluation.kernel import KernelDistance
from diffsweep.evaluation.moments import Moments
from diffsweep.evaluation.reference import Reference

DIMENSION = 6


@pytest.mark.parametrize("count", [2, 5, 20])
def test_the_interval_of_a_mean_is_that_of_the_t_test(count: int) -> None:
    values = np.random.default_rng(count).gamma(2.0, size=count)
    without = [float(np.delete(values, k).mean()) for k in range(count)]
    estimate = Estimate(float(values.mean()), without)
    assert estimate.error == pytest.approx(values.std(ddof=1) / math.sqrt(count), rel=1e-12)
    exact = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.interval == pytest.approx((exact.low, exact.high), rel=1e-12)


def test_blocks_count_as_one_value_each() -> None:
    values = torch.randn(60, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = Features({"features": values})
    means = np.array([float(values[block].mean()) for block in features.blocks])
    without = [float(features.without(k)["features"].mean()) for k in range(20)]
    assert Estimate(float(values.mean()), without).error == pytest.approx(means.std(ddof=1) / math.sqrt(20), rel=1e-12)


def test_a_number_that_chance_does_not_move_has_no_width() -> None:
    assert Estimate(3.0, [3.0] * 20).interval == (3.0, 3.0)


# --- coverage by simulation -------------------------------------------------------------------------------------------


def heavy(n: int, generator: torch.Generator) -> Tensor:
    """Features whose tails are heavier than a Gaussian's, (n, DIMENSION)."""
    z = torch.randn(n, DIMENSION, generator=generator, dtype=torch.float64)
    return z * (1 + 0.2 * z[:, :1].abs())


REAL = heavy(200, torch.Generator().manual_seed(-1))
MODELS: dict[str, Callable[[Tensor], Tensor]] = {
    "near": lambda x: x,
    "far": lambda x: 1.2 * x + 0.3,
    "a little farther": lambda x: 1.22 * x + 0.32,
}


@pytest.fixture(scope="module")
def estimates() -> dict[tuple[str, str], list[Estimate]]:
    """Of every model and number, from samples that are drawn again and again; models share their noise."""
    real = Reference(Features({"features": REAL}), {"features": Moments.of(REAL)}, "")
    evaluation = Evaluation(identity(DIMENSION), [Frechet(), KernelDistance(), Energy()])
    found: dict[tuple[str, str], list[Estimate]] = {}
    for seed in range(160):
        x = heavy(200, torch.Generator().manual_seed(seed))
        for model, change in MODELS.items():
            for name, estimate in evaluation.measure(Features({"features": change(x)}), real).items():
                found.setdefault((model, name), []).append(estimate)
    return found


def cover(estimates: Sequence[Estimate]) -> float:
    """Share of intervals that hold the mean of all."""
    mean = math.fsum(estimate.value for estimate in estimates) / len(estimates)
    return sum(low <= mean <= high for low, high in (estimate.interval for estimate in estimates)) / len(estimates)


def differences(a: Sequence[Estimate], b: Sequence[Estimate]) -> list[Estimate]:
    return [
        Estimate(x.value - y.value, [p - q for p, q in zip(x.without, y.without, strict=True)])
        for x, y in zip(a, b, strict=True)
    ]


def width(estimates: Sequence[Estimate]) -> float:
    return math.fsum(high - low for low, high in (estimate.interval for estimate in estimates)) / len(estimates)


Found = dict[tuple[str, str], list[Estimate]]


@pytest.mark.parametrize("name", ["fd_points", "kd_points", "energy_points"])
@pytest.mark.parametrize("model", MODELS)
def test_intervals_hold_the_mean_of_other_samples_as_often_as_they_say(estimates: Found, model: str, name: str) -> None:
    assert 0.90 <= cover(estimates[model, name]) <= 0.99


@pytest.mark.parametrize("name", ["fd_points", "kd_points", "energy_points"])
def test_pairing_narrows_the_interval_of_a_difference_and_it_covers_still(estimates: Found, name: str) -> None:
    one, other = estimates["far", name], estimates["a little farther", name]
    paired = differences(one, other)
    assert 0.90 <= cover(paired) <= 0.99
    assert width(paired) < 0.2 * math.hypot(width(one), width(other))
    # What is told apart so is so: the farther model is told from the other, which their own intervals never do.
    assert np.mean([high < 0 for _, high in (estimate.interval for estimate in paired)]) > 0.9
    overlap = [a.interval[1] >= b.interval[0] for a, b in zip(one, other, strict=True)]
    assert np.mean(overlap) > 0.9
