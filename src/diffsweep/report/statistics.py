"""Which of two cells is better, and whether chance alone could have made it so.

Sample i starts from the same noise in every cell, and lies in the same of g blocks. With a_k and b_k two cells' numbers
without block k (`Measure.jackknife`) and d_k = a_k - b_k, the difference a - b of the numbers has the standard
error sqrt((g - 1) / g sum (d_k - mean)^2), and a - b +- t se is its interval, t Student's quantile at g - 1 degrees of
freedom (see `evaluation.interval`). Cells of different sample seeds share no noise: theirs is
se^2 = se_a^2 + se_b^2, at the smaller of both g - 1 (fewer degrees of freedom than Welch's, hence rather too wide).

What is told apart are trained models with their samplers. That another training seed would give another model is not
in these intervals: a claim about a method needs several seeds, over which `mean_difference` takes the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from diffsweep.report.protocol import TITLES, protocol_of
from diffsweep.sweep.store.result import Result, larger_is_better

LEVEL = 0.95

# Values by block are recorded with nine digits.
_RECORDED = 1e-9


@dataclass(frozen=True)
class Difference:
    """A difference a - b of two cells' numbers.

    Attributes:
        value: a - b.
        low: lower end of its interval.
        high: upper end.
        paired: whether both cells started from the same noise.
        seeds: training seeds that the interval is about; of 1, it is about these very models.
    """

    value: float
    low: float
    high: float
    paired: bool
    seeds: int = 1

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    @property
    def significant(self) -> bool:
        """Whether chance alone is not likely to have made it: its interval does not contain 0."""
        return not self.low <= 0 <= self.high


def rank(result: Result, name: str) -> tuple[bool, float]:
    """Key to order results by a number, the best first, those without it last."""
    value = result.value(name)
    if value is None:
        return True, 0.0
    return False, -value if larger_is_better(name) else value


def difference(a: Result, b: Result, name: str, level: float = LEVEL) -> Difference | None:
    """The difference a - b of the number `name` with its interval; None where nothing tells how sure it is.

    Args:
        a: a result with its jackknife values.
        b: the same of another cell.
        name: of the number, as fd_digits.
        level: probability with which the interval contains the difference, in (0, 1).

    Raises:
        ValueError: for cells that were measured differently.
    """
    how, other_how = protocol_of(a, name), protocol_of(b, name)
    differing = [title for title, x, y in zip(TITLES.values(), how, other_how, strict=True) if x != y]
    if differing:
        raise ValueError(f"{name} of cells with different {', '.join(differing)} cannot be compared")
    first, second = a.measure(name), b.measure(name)
    one, other = first.jackknife, second.jackknife
    if first.value is None or second.value is None or not one or not other:
        return None
    paired = len(one) == len(other) and a.sample_seed is not None and a.sample_seed == b.sample_seed
    if paired:
        error = _error([x - y for x, y in zip(one, other, strict=True)])
    else:
        error = math.hypot(_error(one), _error(other))
    value = first.value - second.value
    reach = t_quantile((1 + level) / 2, min(len(one), len(other)) - 1) * error
    # The same images in other batches or threads: equal but for the last bits, of which the record shows nothing.
    reach = max(reach, _RECORDED * max(abs(first.value), abs(second.value)))
    return Difference(value, value - reach, value + reach, paired)


def mean_difference(pairs: Sequence[tuple[Result, Result]], name: str, level: float = LEVEL) -> Difference | None:
    """The mean over pairs of cells (a, b) of the differences a - b, with its interval; None where nothing tells it.

    Of pairs that share their noise the number without block k of the mean is the mean of theirs; what is of other noise
    is independent. If the pairs are of S > 1 training seeds, a and b of the same, then the seeds are a sample as well:
    with e_s the sum of a seed's deviations from the mean, over the number of pairs, the standard error by seeds is
    sqrt(S / (S - 1) sum e_s^2), that of clusters. Both half widths, each with its own t, add in squares, which counts
    what samples do to a single seed twice: wide rather than narrow.
    """
    examples = []
    for a, b in pairs:
        first, second, noise = a.measure(name), b.measure(name), a.sample_seed
        one, other = first.jackknife, second.jackknife
        if first.value is None or second.value is None or not one or len(one) != len(other):
            return None
        if noise is None or noise != b.sample_seed:
            return None
        without = [x - y for x, y in zip(one, other, strict=True)]
        examples.append(_Example(first.value - second.value, without, noise, a.seed if a.seed == b.seed else None))
    return _mean(examples, level)


def seed_mean(results: Sequence[Result], name: str, level: float = LEVEL) -> Difference | None:
    """The mean of a number over cells of several training seeds, with its interval; None where nothing tells it.

    The interval is that of `mean_difference`, for differences to 0.
    """
    examples = []
    for result in results:
        measure = result.measure(name)
        if measure.value is None or not measure.jackknife or result.sample_seed is None:
            return None
        examples.append(_Example(measure.value, measure.jackknife, result.sample_seed, result.seed))
    return _mean(examples, level)


@dataclass(frozen=True)
class _Example:
    """A number or difference of which a mean is taken: its value, itself without each block, its noise and seed."""

    value: float
    without: Sequence[float]
    noise: float
    seed: float | None


def _mean(examples: Sequence[_Example], level: float) -> Difference | None:
    if not examples:
        return None
    gaps = [one.value for one in examples]
    noises = [(one.noise, one.without) for one in examples]
    seeds = [one.seed for one in examples]
    count, value, squares = len(gaps), math.fsum(gaps) / len(gaps), 0.0
    for noise in dict.fromkeys(noise for noise, _ in noises):
        rows = [without for other, without in noises if other == noise]
        if len(set(map(len, rows))) > 1:
            return None
        without = [math.fsum(column) / count for column in zip(*rows, strict=True)]
        squares += (t_quantile((1 + level) / 2, len(without) - 1) * _error(without)) ** 2
    trained = len(set(seeds)) if None not in seeds else 1
    if trained > 1:
        off: dict[Any, float] = {}
        for gap, seed in zip(gaps, seeds, strict=True):
            off[seed] = off.get(seed, 0.0) + (gap - value) / count
        error = math.sqrt(trained / (trained - 1) * math.fsum(one**2 for one in off.values()))
        squares += (t_quantile((1 + level) / 2, trained - 1) * error) ** 2
    reach = math.sqrt(squares)
    return Difference(value, value - reach, value + reach, paired=True, seeds=trained)


def level_for(comparisons: int) -> float:
    """Level of each of so many intervals with which all hold at once with 95 % (Bonferroni), if named beforehand."""
    return 1 - (1 - LEVEL) / max(1, comparisons)


def differences_to_best(
    results: Sequence[Result],
    name: str,
    shown: Sequence[Result] | None = None,
    read: Callable[[Result], Result] = lambda result: result,
) -> tuple[Result | None, list[Difference | None]]:
    """The best of `results`, and what each of `shown` (default: of all) lacks to it: cell - best, with its interval.

    With k cells that have the number there are k - 1 comparisons, and each interval has the level 1 - 0.05 / (k - 1).
    The truly best cell then is, with a probability of at least 95 %, the best one here or one whose interval contains
    0: it is missed only if its interval against the cell that happens to be best here lies off 0, whichever that is,
    and so only if one of its k - 1 intervals does not hold. (That is all that is promised: which cell happens to be the
    best is chance too, so with many equal cells some interval of a difference to it misses in more than 5 %.)

    The difference is None for the best itself, for a cell without the number, and where nothing tells how sure it is.
    `read` gives a result with its jackknife values; it is called for the best and for those shown.

    Raises:
        ValueError: for cells that were measured differently.
    """
    able = sum(result.value(name) is not None for result in results)
    if not able:
        return None, [None for _ in (results if shown is None else shown)]
    best, level = min(results, key=lambda result: rank(result, name)), level_for(able - 1)
    rows, whole = results if shown is None else shown, read(best)
    return best, [None if row is best else difference(read(row), whole, name, level) for row in rows]


def ties_with_best(results: Sequence[Result], name: str) -> list[Result]:
    """The cells that cannot be told from the best, itself included; the truly best is one of them with 95 % or more.

    A cell whose difference has no interval is one of them, for nothing tells it apart; one without the number is not.

    Raises:
        ValueError: for cells that were measured differently.
    """
    best, differences = differences_to_best(results, name)
    return [
        result
        for result, found in zip(results, differences, strict=True)
        if result is best or (result.value(name) is not None and (found is None or not found.significant))
    ]


def _error(without: Sequence[float]) -> float:
    """Standard error of a number, or of a difference, from its values without each block."""
    n = len(without)
    mean = math.fsum(without) / n
    return math.sqrt((n - 1) / n * math.fsum((value - mean) ** 2 for value in without))


@lru_cache(maxsize=256)
def t_quantile(probability: float, dof: int) -> float:
    """Student's t: the value that a variable with `dof` >= 1 degrees of freedom stays below with a `probability`.

    Source: M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4: for whole degrees
    of freedom P(|T| < sqrt(dof) tan theta) is a finite sum, which is bisected here.

    Args:
        probability: in [0.5, 1).
        dof: whole.
    """
    assert 0.5 <= probability < 1, probability
    assert dof >= 1, dof
    low, high = 0.0, math.pi / 2
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, dof) < 2 * probability - 1 else (low, middle)
    return math.sqrt(dof) * math.tan(low)


def _within(theta: float, dof: int) -> float:
    odd = dof % 2
    cosine, total = math.cos(theta), 0.0
    term = cosine if odd else 1.0
    for power in range(odd, dof - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * cosine**2
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total
