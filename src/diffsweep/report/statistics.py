"""Which of two cells is better, and whether chance alone could have made it so.

Sample i starts from the same noise in every cell, and lies in the same of g blocks. With a_k and b_k two cells' numbers
without block k (NAME_jackknife of a result) and d_k = a_k - b_k, the difference a - b of the numbers has the standard
error sqrt((g - 1) / g sum (d_k - mean)^2), and a - b +- t se is its interval, t Student's quantile at g - 1 degrees of
freedom (see `evaluation.interval`). Cells of different sample seeds share no noise: theirs is
se^2 = se_a^2 + se_b^2, at the smaller of both g - 1 (fewer degrees of freedom than Welch's, hence rather too wide).

What is told apart are trained models with their samplers. That another training seed would give another model is not
in these intervals: a claim about a method needs several seeds, over which `mean_difference` takes the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

Result = Mapping[str, Any]

LEVEL = 0.95

# What must agree for two numbers to be compared at all, and what each is called. What follows from another comes later.
PROTOCOL = (
    ("dataset", "dataset"),
    ("metric", "metric"),
    ("samples", "samples"),
    ("reference_split", "reference split"),
    ("resize", "resize"),
    ("bits", "bits"),
    ("reference_samples", "reference samples"),
    ("reference_digest", "reference data"),
    ("extractor_digest", "extractor weights"),
    ("METRIC_by", "settings of the metric"),
)

# First words of the names of numbers that are better when larger; all others are distances and errors.
_LARGER = ("precision", "recall", "density", "coverage", "accuracy", "score", "inception_score")
_UNRECORDED = "unrecorded"

# NAME_jackknife has nine digits.
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
    def told_apart(self) -> bool:
        """Whether chance alone is not likely to have made it: its interval does not contain 0."""
        return not self.low <= 0 <= self.high


def larger_is_better(name: str) -> bool:
    """Whether more is better of the number `name`, as of precision_digits; of distances and errors less is."""
    return any(name == first or name.startswith(f"{first}_") for first in _LARGER)


def protocol(result: Result) -> tuple[Any, ...]:
    """How a cell's numbers were measured: the fields of `PROTOCOL`. A field that it lacks equals nothing recorded."""
    return tuple(result.get(key, _UNRECORDED) for key in fields(str(result.get("metric"))))


def fields(name: str) -> list[str]:
    """Keys of a result by which a number `name` is comparable with others: those of `PROTOCOL`."""
    return [field.replace("METRIC", name) for field, _ in PROTOCOL]


def apart(protocols: Sequence[tuple[Any, ...]]) -> list[int]:
    """Which fields of `PROTOCOL` keep these apart, by place; none that differs only because an earlier one does."""
    prefixes = [len({one[:length] for one in protocols}) for length in range(len(PROTOCOL) + 1)]
    return [place for place, (before, after) in enumerate(pairwise(prefixes)) if after > max(before, 1)]


def finite(result: Result, name: str) -> float | None:
    """A number of a result; None if it lacks it, or it is not finite."""
    value = result.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return value


def half(result: Result, name: str) -> float | None:
    """Half the width of the 95 % interval of a number; None where none is recorded."""
    low, high = finite(result, f"{name}_low"), finite(result, f"{name}_high")
    return None if low is None or high is None else (high - low) / 2


def numbers(result: Result) -> list[str]:
    """Names of all numbers that were measured of a cell, its main one first."""
    main = result.get("metric")
    measured = (key.removesuffix("_low").removesuffix("_floor") for key in result if key.endswith(("_low", "_floor")))
    return list(dict.fromkeys([*([str(main)] if main else []), *(name for name in measured if name in result)]))


def by(results: Sequence[Result], name: str) -> list[Result]:
    """Those `results` that have the number `name`, as if it were their main one.

    Cells without finite samples have no numbers but lost all the same: they stay, among cells measured alike.

    Raises:
        ValueError: when none has it.
    """
    having: list[Result] = [{**result, "metric": name} for result in results if _has(result, name)]
    if not having:
        known = sorted({known for result in results for known in numbers(result)})
        raise ValueError(f"no result has a number {name}; choose one of {', '.join(known)}")
    alike = set(map(protocol, having))
    lost = []
    for result in results:
        main = result.get("metric")
        if main is not None and main != name and finite(result, str(main)) is None and not _has(result, name):
            moved = {**result, "metric": name, name: None, f"{name}_reason": result.get(f"{main}_reason")}
            # Nothing was measured of it, with whatever settings.
            found = [moved | {f"{name}_by": one.get(f"{name}_by", _UNRECORDED)} for one in having]
            lost += [one for one in found if protocol(one) in alike][:1]
    return having + lost


def _has(result: Result, name: str) -> bool:
    return name in result and (name == result.get("metric") or f"{name}_low" in result or f"{name}_floor" in result)


def rank(result: Result, name: str) -> tuple[bool, float]:
    """Key to order results by a number, the best first, those without it last."""
    value = finite(result, name)
    if value is None:
        return True, 0.0
    return False, -value if larger_is_better(name) else value


def difference(a: Result, b: Result, name: str, level: float = LEVEL) -> Difference | None:
    """The difference a - b of the number `name` with its interval; None where nothing tells how sure it is.

    Args:
        a: content of a result.json, NAME_jackknife included.
        b: the same of another cell.
        name: of the number, as fd_digits.
        level: probability with which the interval contains the difference, in (0, 1).

    Raises:
        ValueError: for cells that were measured differently.
    """
    keys = [key for key in fields(name) if key != "metric"]
    differing = [key for key in keys if a.get(key, _UNRECORDED) != b.get(key, _UNRECORDED)]
    if differing:
        raise ValueError(f"{name} of cells with different {', '.join(differing)} cannot be compared")
    first, second = finite(a, name), finite(b, name)
    one, other = _without(a, name), _without(b, name)
    if first is None or second is None or one is None or other is None:
        return None
    seed = a.get("sample_seed")
    paired = len(one) == len(other) and seed is not None and seed == b.get("sample_seed")
    if paired:
        error = _error([x - y for x, y in zip(one, other, strict=True)])
    else:
        error = math.hypot(_error(one), _error(other))
    value = first - second
    reach = t_quantile((1 + level) / 2, min(len(one), len(other)) - 1) * error
    # The same images in other batches or threads: equal but for the last bits, of which the record shows nothing.
    reach = max(reach, _RECORDED * max(abs(first), abs(second)))
    return Difference(value, value - reach, value + reach, paired)


def mean_difference(pairs: Sequence[tuple[Result, Result]], name: str, level: float = LEVEL) -> Difference | None:
    """The mean over pairs of cells (a, b) of the differences a - b, with its interval; None where nothing tells it.

    Of pairs that share their noise the number without block k of the mean is the mean of theirs; what is of other noise
    is independent. If the pairs are of S > 1 training seeds, a and b of the same, then the seeds are a sample as well:
    with e_s the sum of a seed's deviations from the mean, over the number of pairs, the standard error by seeds is
    sqrt(S / (S - 1) sum e_s^2), that of clusters. Both half widths, each with its own t, add in squares, which counts
    what samples do to a single seed twice: wide rather than narrow.
    """
    gaps, noises, seeds = [], [], []
    for a, b in pairs:
        first, second, one, other = finite(a, name), finite(b, name), _without(a, name), _without(b, name)
        noise = a.get("sample_seed")
        if first is None or second is None or one is None or other is None or len(one) != len(other):
            return None
        if noise is None or noise != b.get("sample_seed"):
            return None
        gaps.append(first - second)
        noises.append((noise, [x - y for x, y in zip(one, other, strict=True)]))
        seeds.append(a.get("seed") if a.get("seed") == b.get("seed") else None)
    if not gaps:
        return None
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


def against_best(
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
    `read` gives a result with its NAME_jackknife; it is called for the best and for those shown.

    Raises:
        ValueError: for cells that were measured differently.
    """
    able = sum(finite(result, name) is not None for result in results)
    if not able:
        return None, [None for _ in (results if shown is None else shown)]
    best, level = min(results, key=lambda result: rank(result, name)), level_for(able - 1)
    rows, whole = results if shown is None else shown, read(best)
    return best, [None if row is best else difference(read(row), whole, name, level) for row in rows]


def tied(results: Sequence[Result], name: str) -> list[Result]:
    """The cells that cannot be told from the best, itself included; the truly best is one of them with 95 % or more.

    A cell whose difference has no interval is one of them, for nothing tells it apart; one without the number is not.

    Raises:
        ValueError: for cells that were measured differently.
    """
    best, differences = against_best(results, name)
    return [
        result
        for result, found in zip(results, differences, strict=True)
        if result is best or (finite(result, name) is not None and (found is None or not found.told_apart))
    ]


def _without(result: Result, name: str) -> list[float] | None:
    try:
        values = [float(word) for word in str(result.get(f"{name}_jackknife") or "").split()]
    except ValueError:
        return None
    return values if len(values) > 1 and all(map(math.isfinite, values)) else None


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
