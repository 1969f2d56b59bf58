"""Overrides of results with defaults filled in, so that a default is one option, whether it was typed or not.

A cell keeps the overrides of the command that made it. Another sweep that asks for the same cell finds it done, though
it may name keys that the first command did not, as `sampler.nfe=20` where 20 is the default. The frozen configs hold
every value: here the overrides of all cells come to name the same keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffsweep.report.overrides import is_neutral, override_values
from diffsweep.sweep.store.override_words import joined, split
from diffsweep.sweep.store.result import GROUPS, Result

_ABSENT = object()


def fill_defaults(results: Sequence[Result], config: Callable[[Result], Mapping[str, Any]]) -> list[Result]:
    """`results` with `overrides` that name, for every cell, each key that any of them names and has one default.

    Keys whose values differ between cells of equal overrides, as after an edit of a YAML file, are named as well.

    Args:
        results: any number of them.
        config: gives the resolved config of a result, empty if there is none; called only if it is needed.
    """
    typed = [override_values(result) for result in results]
    named = dict.fromkeys(key for one in typed for key in one if key not in GROUPS)
    lacking = [key for key in named if any(key not in one for one in typed)]
    alike: dict[Any, list[int]] = {}
    for i, result in enumerate(results):
        overrides = [result.option(group) for group in GROUPS], result.images, sorted(typed[i].items())
        alike.setdefault(json.dumps(overrides), []).append(i)
    twins = [places for places in alike.values() if len(places) > 1]
    if not lacking and not twins:
        return list(results)
    configs = [config(result) for result in results]
    edited: dict[str, None] = {}
    for places in twins:
        flat = [_flat(configs[i]) for i in places]
        keys = dict.fromkeys(key for one in flat for key in one)
        edited |= dict.fromkeys(key for key in keys if not is_neutral(key) and len({one.get(key) for one in flat}) > 1)
    added: list[list[str]] = [[] for _ in results]
    for key in dict.fromkeys([*lacking, *edited]):
        values = [_below(one, key) for one in configs]
        texts = [value if value is _ABSENT else json.dumps(value, sort_keys=True) for value in values]
        words = {text: one[key] for one, text in zip(typed, texts, strict=True) if key in one}
        silent = [i for i, one in enumerate(typed) if key not in one and results[i].images is None]
        # Where each option has a default of its own, cells without an override go together as they are.
        if key not in edited and len({texts[i] for i in silent}) > 1:
            continue
        for i in silent:
            if texts[i] in words or not (values[i] is _ABSENT or isinstance(values[i], Mapping)):
                added[i].append(f"{key}={words[texts[i]] if texts[i] in words else _word(values[i])}")
    return [
        result.replace(overrides=joined([*split(result.overrides), *more])) if more else result
        for result, more in zip(results, added, strict=True)
    ]


def _word(value: Any) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[\w./:-]+", value) else json.dumps(value)


def _below(config: Any, key: str) -> Any:
    for name in key.replace("/", ".").split("."):
        config = config.get(name, _ABSENT) if isinstance(config, Mapping) else _ABSENT
    return config


def _flat(config: Any, key: str = "") -> dict[str, str]:
    if isinstance(config, Mapping):
        below = [_flat(value, f"{key}.{name}" if key else str(name)) for name, value in config.items()]
        return {name: value for one in below for name, value in one.items()}
    return {key: json.dumps(config)}
