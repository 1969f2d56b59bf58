"""Differences between cells: intervals hold, pairing makes them narrow, and the truly best is among the marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffsweep.evaluation.interval import Estimate
from diffsweep.report.factors import effects
from diffsweep.report.protocol import TITLES, differing_fields, protocol_of, with_main_number
from diffsweep.report.statistics import (
    difference,
    differences_to_best,
    level_for,
    mean_difference,
    t_quantile,
    ties_with_best,
)
from diffsweep.sweep.store.result import Measure, Result, larger_is_better

# Keys of a result by which a number fd_digits is comparable with others.
KEYS = {field: "fd_digits_by" if field == "settings" else field for field in TITLES if field != "metric"}

BLOCKS = 20


def cell(values: np.ndarray, name: str = "fd_digits", **fields: Any) -> Result:
    """A result whose number is the mean over samples: its jackknife is known in closed form."""
    blocks = values.reshape(BLOCKS, -1)
    without = (values.sum() - blocks.sum(axis=1)) / (values.size - blocks.shape[1])
    estimate = Estimate(float(values.mean()), list(without))
    measure = Measure(name, estimate.value, *estimate.interval, jackknife=tuple(without))
    # Through the file: the values by block have nine digits.
    flat = Result.parse({"metric": name}).with_measure(measure).flat()
    return Result.parse(flat | {"sample_seed": 0, "samples": values.size} | fields)


@pytest.mark.parametrize("dof", [*range(1, 31), 39, 40, 99, 100, 199, 200])
def test_quantiles_are_those_of_scipy(dof: int) -> None:
    for probability in (0.5, 0.6, 0.9, 0.975, *((1 + level_for(k)) / 2 for k in (2, 5, 20, 100, 10_000))):
        assert t_quantile(probability, dof) == pytest.approx(stats.t.ppf(probability, dof), rel=1e-6, abs=1e-12)


def test_a_paired_difference_of_means_is_the_paired_t_test() -> None:
    # One sample a block: the jackknife of a mean then is the textbook's standard error.
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, BLOCKS), rng.normal(0, 1, BLOCKS)
    found = difference(cell(a), cell(b), "fd_digits")
    peer = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found is not None
    assert found.paired
    assert (found.value, found.low, found.high) == pytest.approx((a.mean() - b.mean(), peer.low, peer.high), rel=1e-6)
    back = difference(cell(b), cell(a), "fd_digits")
    assert back is not None
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_cells_of_other_noise_are_compared_as_independent_ones() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 1, 400)
    a, b = shared + rng.normal(0, 0.1, 400), shared + rng.normal(0, 0.1, 400)
    paired = difference(cell(a), cell(b), "fd_digits")
    apart = difference(cell(a), cell(b, sample_seed=1), "fd_digits")
    seedless = without_key(cell(b), "sample_seed")
    unknown = difference(cell(a, sample_seed=None), seedless, "fd_digits")
    assert paired is not None
    assert apart is not None
    assert unknown is not None
    assert (paired.paired, apart.paired, unknown.paired) == (True, False, False)
    first, second = (one.main.half or 0.0 for one in (cell(a), cell(b)))
    assert apart.half == pytest.approx(np.hypot(first, second), rel=1e-6)
    assert paired.half < apart.half / 4


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_differences_hold(paired: bool) -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1000):
        shared = rng.normal(0, 1, (2, 100))
        a, b = (shared[0 if paired else i] + rng.normal(0.1 * i, 0.5, 100) for i in range(2))
        found = difference(cell(a), cell(b, sample_seed=0 if paired else 1), "fd_digits")
        assert found is not None
        held += found.low <= -0.1 <= found.high
    assert 0.93 < held / 1000 < 0.985


@dataclass(frozen=True)
class Design:
    """How often what was trained and sampled: `each` cells a seed, of `noises` different starting noises."""

    seeds: int
    each: int = 1
    noises: int = 1


def pairs_of_seeds(rng: np.random.Generator, design: Design, moves: float) -> list[tuple[Result, Result]]:
    """Pairs of cells whose numbers are 0.5 apart on average, and `moves` is the deviation of that among seeds."""
    noises = design.noises
    shared = rng.normal(0, 1, (noises, 100))
    pairs = []
    for seed in range(design.seeds):
        gap = 0.5 + rng.normal(0, moves)
        for noise in range(design.each):
            common: dict[str, Any] = {"seed": seed, "sample_seed": noise % noises}
            a, b = (shared[noise % noises] + rng.normal(0, 0.3, 100) for _ in range(2))
            pairs.append((cell(a + gap, **common), cell(b, **common)))
    return pairs


@pytest.mark.parametrize(
    ("design", "moves"),
    [
        pytest.param(Design(seeds=1, each=3), 0, id="one seed"),
        pytest.param(Design(seeds=1, each=4, noises=2), 0, id="one seed, two noises"),
        pytest.param(Design(seeds=3), 0.1, id="seeds that differ"),
        pytest.param(Design(seeds=3, each=4, noises=2), 0.1, id="seeds that differ, two noises"),
        pytest.param(Design(seeds=5, each=2), 0, id="seeds that do not differ"),
    ],
)
def test_intervals_of_mean_differences_hold_for_other_seeds_too(design: Design, moves: float) -> None:
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(400):
        found = mean_difference(pairs_of_seeds(rng, design, moves), "fd_digits")
        assert found is not None
        assert found.seeds == design.seeds
        held += found.low <= 0.5 <= found.high
    # With seeds that make no difference what samples do is counted twice.
    assert 0.925 < held / 400 <= (0.985 if moves or design.seeds == 1 else 1)


def test_a_mean_over_seeds_that_differ_alone_is_the_t_test_of_their_differences() -> None:
    ones = np.ones(40)
    gaps = [0.3, 0.5, 0.9, 0.4]
    pairs = [(cell(ones + gap, seed=seed), cell(ones, seed=seed)) for seed, gap in enumerate(gaps)]
    found = mean_difference(pairs, "fd_digits")
    peer = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), rel=1e-6)


def test_a_mean_over_other_noise_is_surer_than_over_the_same() -> None:
    """Independent errors add in squares; those of shared noise add up."""
    rng = np.random.default_rng(7)
    a, b, c, d = (rng.normal(0, 1, 400) for _ in range(4))
    one, other = difference(cell(a), cell(b), "fd_digits"), difference(cell(c), cell(d), "fd_digits")
    mean = mean_difference([(cell(a), cell(b)), (cell(c, sample_seed=1), cell(d, sample_seed=1))], "fd_digits")
    same = mean_difference([(cell(a), cell(b)), (cell(a), cell(b))], "fd_digits")
    assert one is not None
    assert other is not None
    assert mean is not None
    assert same is not None
    assert mean.half == pytest.approx(np.hypot(one.half, other.half) / 2)
    assert same.half == pytest.approx(one.half)


@pytest.mark.parametrize("name", ["fd_digits", "precision_digits"])
@pytest.mark.parametrize("gaps", [[0.0] * 8, [0.0, 0.02, 0.02, 0.05, 0.1], [0.0, 0.01]], ids=["equal", "near", "two"])
def test_the_truly_best_is_marked(name: str, gaps: list[float]) -> None:
    rng = np.random.default_rng(3)
    sign = -1 if larger_is_better(name) else 1
    missed = 0
    for _ in range(1000):
        shared = rng.normal(0, 1, 60)
        cells = [cell(shared + sign * gap + rng.normal(0, 0.2, 60), name) for gap in gaps]
        missed += not any(one is cells[0] for one in ties_with_best(cells, name))
    assert missed <= 50


def test_the_truly_best_option_of_a_choice_is_not_told_from_the_best() -> None:
    rng = np.random.default_rng(9)
    missed = 0
    for _ in range(300):
        shared = rng.normal(0, 1, 60)
        options = [cell(shared + rng.normal(0, 0.2, 60), sampler=f"s{i}", fit="f") for i in range(10)]
        missed += any(
            effect.mean is not None and effect.mean.significant
            for effect in effects(options, "fd_digits", "sampler")
            if effect.option == "s0"
        )
    assert missed <= 15


def test_few_are_marked_where_differences_are_large() -> None:
    rng = np.random.default_rng(4)
    marked = 0
    for _ in range(200):
        shared = rng.normal(0, 1, 60)
        cells = [cell(shared + gap + rng.normal(0, 0.2, 60)) for gap in (0, 0, 0.5, 0.6, 0.7)]
        marked += len(ties_with_best(cells, "fd_digits"))
    assert 2 * 0.95 <= marked / 200 < 2.1


def test_the_difference_to_the_best_is_that_of_cell_and_best() -> None:
    rng = np.random.default_rng(5)
    cells = [cell(rng.normal(mean, 1, 100)) for mean in (2, 0, 1)]
    best, differences = differences_to_best(cells, "fd_digits")
    assert best is cells[1]
    assert differences[1] is None
    assert differences[0] == difference(cells[0], cells[1], "fd_digits", 0.975)
    assert differences_to_best(cells, "fd_digits", cells[2:]) == (cells[1], [differences[2]])


def test_what_has_no_interval_is_not_significant_and_what_has_no_number_is_no_candidate() -> None:
    known, other = cell(np.arange(40.0)), cell(np.arange(40.0) + 100)
    bare, lost = other.without_jackknife(), other.replace(fd_digits=None)
    damaged = other.replace(fd_digits_jackknife="1 2 x")
    infinite = other.replace(fd_digits_jackknife="1 inf")
    assert ties_with_best([other, bare, lost, known, damaged, infinite], "fd_digits") == [
        bare,
        known,
        damaged,
        infinite,
    ]
    assert ties_with_best([lost], "fd_digits") == []
    assert ties_with_best([], "fd_digits") == []
    assert ties_with_best([known], "fd_digits") == [known]


def test_equal_cells_are_tied_and_certain_differences_are_not() -> None:
    same = cell(np.ones(40))
    assert ties_with_best([same, same.replace(), cell(np.ones(40) * 2)], "fd_digits") == [same, same]
    # As of the same images that were scored with another number of threads.
    varied = cell(np.random.default_rng(8).normal(1, 1, 40))
    rounded = varied.replace(fd_digits=(varied.value("fd_digits") or 0) * (1 + 1e-13))
    assert ties_with_best([rounded, varied], "fd_digits") == [rounded, varied]


@pytest.mark.parametrize(
    ("name", "larger"),
    [
        *((f"{name}{of}", True) for name in ("precision", "recall", "density", "coverage") for of in ("", "_digits")),
        *((name, True) for name in ("accuracy_fashion_mnist", "score_digits", "inception_score")),
        *((name, False) for name in ("fid", "fd_digits", "kd_imagenet", "kid", "w2_points", "energy_points", "nll")),
        ("scores", False),
        ("fd_precision", False),
    ],
)
def test_directions(name: str, larger: bool) -> None:
    assert larger_is_better(name) is larger


def without_key(result: Result, key: str) -> Result:
    return Result.parse({known: value for known, value in result.values.items() if known != key})


@pytest.mark.parametrize("field", KEYS)
def test_what_was_measured_differently_is_not_compared(field: str) -> None:
    key = KEYS[field]
    first, other = ("a", "b") if field == "settings" else (1, 2)
    a = cell(np.arange(40.0)).replace(**dict.fromkeys(KEYS.values(), 1) | {"fd_digits_by": "a", key: first})
    for b in (a.replace(**{key: other}), a.replace(**{key: None}), without_key(a, key)):
        with pytest.raises(ValueError, match=TITLES[field]):
            difference(a, b, "fd_digits")
        assert protocol_of(a) != protocol_of(b)
    assert difference(a, a.replace(metric="kd_digits"), "fd_digits") is not None


def test_what_follows_from_another_is_no_reason_of_its_own() -> None:
    def reasons(*cells: Result) -> list[str]:
        return differing_fields([protocol_of(one) for one in cells])

    base = Result.parse(dict.fromkeys(KEYS.values(), 1) | {"metric": "fd_digits"})
    assert reasons(base, base) == []
    assert reasons(base, base.replace(dataset=2, reference_digest=2, metric="kid")) == ["dataset"]
    assert reasons(base, base.replace(extractor_digest=2)) == ["extractor_digest"]
    assert reasons(base, base.replace(samples=2), base.replace(extractor_digest=2)) == ["samples", "extractor_digest"]


def test_another_number_takes_the_place_of_the_main_one() -> None:
    a = cell(np.arange(40.0)).replace(kd_digits=3.0, kd_digits_floor=0.1)
    reason = "3 of 40 samples are not finite"
    lost = Result.parse({"metric": "fd_digits", "fd_digits": None, "fd_digits_reason": reason, "samples": 40})
    without = cell(np.arange(40.0))
    assert a.measured == ["fd_digits", "kd_digits"]
    first, second = with_main_number([a, without, lost, lost.replace(samples=50)], "kd_digits")
    assert (first.metric, first.main.value) == ("kd_digits", 3.0)
    assert (second.main.value, second.main.reason) == (None, reason)
    for name in ("kid", "samples", "fd_digits_low"):
        with pytest.raises(ValueError, match=f"no result has a number {name}; choose one of fd_digits, kd_digits"):
            with_main_number([a, without], name)
