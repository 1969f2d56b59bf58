"""The space of a search: Hydra's overrides as Optuna's distributions, and a distribution as what a trial draws from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffsweep.sweep.plan.override_text import valid, value_text

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna import Trial
    from optuna.distributions import BaseDistribution


def space(overrides: Sequence[Override]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The distributions, as JSON, and the fixed overrides among parsed ones; of the same key the last counts.

    As in Hydra's own plugin for Optuna: `a,b` and `choice(a,b)` are categories, `interval(a,b)` is continuous, and
    `range(a,b,step=s)` is stepped and may reach b; `tag(log,...)` and `tag(int,...)` mean what they say, and so do the
    casts of Hydra's grammar: `int(interval(4,64))` has whole numbers, both ends included.

    Raises ValueError for ranges that are empty, or not above 0 under a logarithm.
    """
    from optuna.distributions import distribution_to_json

    fixed, distributions = [], {}
    for override in valid(overrides):
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
            continue
        try:
            distributions[override.get_key_element()] = distribution_to_json(_distribution(override))
        except ValueError as error:
            raise ValueError(f"{override.input_line}: {' '.join(str(error).split())}") from error
    return distributions, tuple(fixed)


def _distribution(override: Override) -> BaseDistribution:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep, Sweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        _tags(value.tags, "log", "int")
        log, cast = "log" in value.tags, isinstance(value.start, int) and isinstance(value.end, int)
        if cast or "int" in value.tags:
            return IntDistribution(math.ceil(value.start), math.floor(value.end), log=log)
        return FloatDistribution(value.start, value.end, log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        assert value.start is not None
        assert value.stop is not None
        _tags(value.tags, "log")
        low, high, step = value.start, value.stop, value.step
        if step < 0:
            # The same values, counted from below.
            low, high, step = low + (high - low) // step * step, low, -step
        if isinstance(low, float) or isinstance(high, float) or isinstance(step, float):
            if value.tags:
                raise ValueError("a logarithmic range has whole numbers: use tag(log,interval(...))")
            return FloatDistribution(low, high, step=step)
        return IntDistribution(low, high, step=step, log="log" in value.tags)
    if isinstance(value, Sweep) and value.tags:
        raise ValueError(f"tag {', '.join(sorted(value.tags))} is about ranges and intervals, and these are choices")
    return CategoricalDistribution([_category(one) for one in override.sweep_iterator()])


def _category(value: Any) -> bool | int | float | str:
    # In the grammar of overrides, so that it can be written behind a key again.
    return value if isinstance(value, (bool, int, float)) else value_text(value)


def _tags(tags: set[str], *known: str) -> None:
    for tag in tags:
        if tag not in known:
            raise ValueError(f"tag {tag} is unknown here: choose one of {', '.join(known)}")


def described(distribution: BaseDistribution) -> str:
    """A distribution in the grammar that it was given in."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return ",".join(value if isinstance(value, str) else value_text(value) for value in distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    bounds = f"{distribution.low},{distribution.high}"
    whole = isinstance(distribution, IntDistribution)
    if distribution.step is not None and not (whole and distribution.step == 1):
        return f"range({bounds},step={distribution.step})"
    interval = f"int(interval({bounds}))" if whole else f"interval({bounds})"
    return f"tag(log,{interval})" if distribution.log else interval


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Give `trial` a value for `key`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, FloatDistribution):
        trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    else:
        assert isinstance(distribution, CategoricalDistribution)
        trial.suggest_categorical(key, distribution.choices)


def axis(key: str, distribution: BaseDistribution, *, some: bool = False) -> list[Any]:
    """All values, in order; with `some`, of an interval only its lower end. Raises ValueError for an interval."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None and some:
        return [distribution.low]
    if distribution.step is None:
        raise ValueError(f"sampler=grid needs choices or ranges, and {key} is an interval: write range(a,b,step=s)")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + place * distribution.step for place in range(count)]
