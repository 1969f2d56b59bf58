"""Differences between cells: intervals hold, pairing makes them narrow, and the truly best is among the marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffsweep.evaluation.interval import Estimate
from diffsweep.report.factors import effects
from diffsweep.report.statistics import (
    PROTOCOL,
    against_best,
    apart,
    by,
    difference,
    fields,
    larger_is_better,
    level_for,
    mean_difference,
    numbers,
    protocol,
    t_quantile,
    tied,
)

BLOCKS = 20


def cell(values: np.ndarray, name: str = "fd_digits", **fields: Any) -> dict[str, Any]:
    """A result whose number is the mean over samples: its jackknife is known in closed form."""
    blocks = values.reshape(BLOCKS, -1)
    without = (values.sum() - blocks.sum(axis=1)) / (values.size - blocks.shape[1])
    estimate = Estimate(float(values.mean()), list(without))
    return {
        "metric": name,
        name: estimate.value,
        f"{name}_low": estimate.interval[0],
        f"{name}_high": estimate.interval[1],
        f"{name}_jackknife": " ".join(f"{value:.9g}" for value in without),
        "sample_seed": 0,
        "samples": values.size,
    } | fields


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
    seedless = {key: value for key, value in cell(b).items() if key != "sample_seed"}
    unknown = difference(cell(a, sample_seed=None), seedless, "fd_digits")
    assert paired is not None
    assert apart is not None
    assert unknown is not None
    assert (paired.paired, apart.paired, unknown.paired) == (True, False, False)
    half = [(one["fd_digits_high"] - one["fd_digits_low"]) / 2 for one in (cell(a), cell(b))]
    assert apart.half == pytest.approx(np.hypot(*half), rel=1e-6)
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


def pairs_of_seeds(
    rng: np.random.Generator, design: Design, moves: float
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
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
        missed += not any(one is cells[0] for one in tied(cells, name))
    assert missed <= 50


def test_the_truly_best_option_of_a_choice_is_not_told_from_the_best() -> None:
    rng = np.random.default_rng(9)
    missed = 0
    for _ in range(300):
        shared = rng.normal(0, 1, 60)
        options = [cell(shared + rng.normal(0, 0.2, 60), sampler=f"s{i}", fit="f") for i in range(10)]
        missed += any(
            effect.mean is not None and effect.mean.told_apart
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
        marked += len(tied(cells, "fd_digits"))
    assert 2 * 0.95 <= marked / 200 < 2.1


def test_the_difference_to_the_best_is_that_of_cell_and_best() -> None:
    rng = np.random.default_rng(5)
    cells = [cell(rng.normal(mean, 1, 100)) for mean in (2, 0, 1)]
    best, differences = against_best(cells, "fd_digits")
    assert best is cells[1]
    assert differences[1] is None
    assert differences[0] == difference(cells[0], cells[1], "fd_digits", 0.975)
    assert against_best(cells, "fd_digits", cells[2:]) == (cells[1], [differences[2]])


def test_what_has_no_interval_is_not_told_apart_and_what_has_no_number_is_no_candidate() -> None:
    known, other = cell(np.arange(40.0)), cell(np.arange(40.0) + 100)
    bare = {key: value for key, value in other.items() if not key.endswith("_jackknife")}
    lost = {**other, "fd_digits": None}
    damaged = {**other, "fd_digits_jackknife": "1 2 x"}
    infinite = {**other, "fd_digits_jackknife": "1 inf"}
    assert tied([other, bare, lost, known, damaged, infinite], "fd_digits") == [bare, known, damaged, infinite]
    assert tied([lost], "fd_digits") == []
    assert tied([], "fd_digits") == []
    assert tied([known], "fd_digits") == [known]


def test_equal_cells_are_tied_and_certain_differences_are_not() -> None:
    same = cell(np.ones(40))
    assert tied([same, dict(same), cell(np.ones(40) * 2)], "fd_digits") == [same, same]
    # As of the same images that were scored with another number of threads.
    varied = cell(np.random.default_rng(8).normal(1, 1, 40))
    rounded = varied | {"fd_digits": varied["fd_digits"] * (1 + 1e-13)}
    assert tied([rounded, varied], "fd_digits") == [rounded, varied]


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


@pytest.mark.parametrize("field", [field for field in fields("fd_digits") if field != "metric"])
def test_what_was_measured_differently_is_not_compared(field: str) -> None:
    a = cell(np.arange(40.0)) | {field: 1 for field in fields("fd_digits") if field != "metric"}
    lacking = {key: value for key, value in a.items() if key != field}
    for b in (a | {field: 2}, a | {field: None}, lacking):
        with pytest.raises(ValueError, match=field):
            difference(a, b, "fd_digits")
        assert protocol(a) != protocol(b)
    assert difference(a, a | {"metric": "kd_digits"}, "fd_digits") is not None


def test_what_follows_from_another_is_no_reason_of_its_own() -> None:
    def reasons(*cells: dict[str, Any]) -> list[str]:
        return [PROTOCOL[place][0] for place in apart([protocol(one) for one in cells])]

    base = dict.fromkeys(fields("1"), 1)
    assert reasons(base, base) == []
    assert reasons(base, base | {"dataset": 2, "reference_digest": 2, "metric": 2}) == ["dataset"]
    assert reasons(base, base | {"extractor_digest": 2}) == ["extractor_digest"]
    assert reasons(base, base | {"samples": 2}, base | {"extractor_digest": 2}) == ["samples", "extractor_digest"]


def test_another_number_takes_the_place_of_the_main_one() -> None:
    a = cell(np.arange(40.0)) | {"kd_digits": 3.0, "kd_digits_floor": 0.1}
    reason = "3 of 40 samples are not finite"
    lost = {"metric": "fd_digits", "fd_digits": None, "fd_digits_reason": reason, "samples": 40}
    without = cell(np.arange(40.0))
    assert numbers(a) == ["fd_digits", "kd_digits"]
    first, second = by([a, without, lost, lost | {"samples": 50}], "kd_digits")
    assert (first["metric"], first["kd_digits"]) == ("kd_digits", 3.0)
    assert (second["kd_digits"], second["kd_digits_reason"]) == (None, reason)
    for name in ("kid", "samples", "fd_digits_low"):
        with pytest.raises(ValueError, match=f"no result has a number {name}; choose one of fd_digits, kd_digits"):
            by([a, without], name)
