"""Equal runs have one name, different runs two; checked on random configs rather than on chosen ones."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import processes
from diffsweep.sweep.store.signature import INFERENCE, NEUTRAL, cell_signature, fit_signature

CONFIG: dict[str, Any] = {
    "dataset": {"_target_": "a.Digits", "root": "/data", "size": 8, "classes": [0, 1, 2]},
    "schedule": {"name": "cosine", "shift": 1},
    "trainer": {"lr": 0.1, "steps": 1000, "devices": 1, "nested": {"ema": {"decay": 0.999}}, "clip": None},
    "sampler": {"steps": 20, "churn": 0.0, "solver": {"order": 2}},
    "guidance": {"scale": 1.5},
    "evaluation": {"samples": 1000, "seed": 1, "batch_size": 64},
    "paths": {"runs": "runs"},
    "augment": True,
}

SAMPLER_SIDE = ("sampler", "guidance", "evaluation", "weights")

# The machine may be shared and slow; how long an example takes is not what is tested.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
names = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=6)
trees = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(names, below, max_size=4), max_leaves=12
)
configs = st.dictionaries(names | st.sampled_from(["trainer", "dataset", "sampler", "evaluation"]), trees, max_size=6)


def shuffled(tree: Any, draw: Callable[[st.SearchStrategy[list[str]]], list[str]]) -> Any:
    if isinstance(tree, dict):
        return {key: shuffled(tree[key], draw) for key in draw(st.permutations(list(tree)))}
    return [shuffled(below, draw) for below in tree] if isinstance(tree, list) else tree


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, below in tree.items():
        if isinstance(below, dict) and below:
            yield from leaves(below, (*path, key))
        else:
            yield (*path, key)


def put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    below = tree
    for key in path[:-1]:
        below = below.setdefault(key, {})
    below[path[-1]] = value
    return tree


def both(cfg: Any) -> tuple[str, str]:
    return fit_signature(cfg), cell_signature(cfg)


def under(path: tuple[str, ...], declared: tuple[str, ...]) -> bool:
    return any(path[: len(parts)] == parts for parts in (tuple(one.split(".")) for one in declared))


@unhurried
@given(configs, st.data())
def test_order_of_keys_does_not_matter(cfg: dict[str, Any], data: st.DataObject) -> None:
    assert both(shuffled(cfg, data.draw)) == both(cfg)


@unhurried
@given(configs, st.sampled_from(NEUTRAL), trees)
def test_neutral_keys_never_matter(cfg: dict[str, Any], path: str, value: Any) -> None:
    parts = tuple(path.split("."))
    assume(len(parts) == 1 or isinstance(cfg.get(parts[0], {}), dict))
    assert both(put(cfg, parts, value)) == both({key: below for key, below in cfg.items() if key != path})


@unhurried
@given(configs, st.sampled_from(SAMPLER_SIDE), trees)
def test_inference_keys_never_matter_to_the_fit(cfg: dict[str, Any], key: str, value: Any) -> None:
    assert fit_signature({**cfg, key: value}) == fit_signature(cfg)


@unhurried
@given(st.sampled_from(sorted(leaves(CONFIG))), trees)
def test_every_other_key_matters(path: tuple[str, ...], value: Any) -> None:
    other = put(CONFIG, path, value)
    assume(json.dumps(_get(other, path)) != json.dumps(_get(CONFIG, path)))
    assume(not _same_number(value, _get(CONFIG, path)))
    neutral, inference = under(path, NEUTRAL), under(path, INFERENCE)
    assert (fit_signature(other) != fit_signature(CONFIG)) == (not neutral and not inference)
    assert (cell_signature(other) != cell_signature(CONFIG)) == (not neutral)


@unhurried
@given(configs, names, trees)
def test_an_undeclared_key_retrains(cfg: dict[str, Any], key: str, value: Any) -> None:
    assume(key not in cfg)
    assume(key not in (*NEUTRAL, *INFERENCE))
    fit, cell = both({**cfg, key: value})
    assert fit != fit_signature(cfg)
    assert cell != cell_signature(cfg)


def _get(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _same_number(a: Any, b: Any) -> bool:
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    return numbers and a == b


def test_what_is_declared() -> None:
    assert INFERENCE == SAMPLER_SIDE
    for path in ("hydra", "paths", "logger", "dataset.root", "trainer.devices", "evaluation.batch_size"):
        assert path in NEUTRAL
    assert not any("seed" in path or path.startswith(("backbone", "diffuser", "schedule")) for path in NEUTRAL)


def test_names_are_short_hex_and_stable_across_processes() -> None:
    other = processes.run("sign", json.dumps(CONFIG), check=True).stdout.split()
    assert tuple(other) == both(CONFIG)
    assert all(len(name) == 12 and set(name) <= set("0123456789abcdef") for name in other)


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1.0), (0.0, -0.0), (0, -0.0), (1e3, 1000), (2**60, float(2**60)), ([1, 2], (1.0, 2))]
)
def test_equal_numbers_are_one(a: Any, b: Any) -> None:
    assert both({"lr": a}) == both({"lr": b})


@pytest.mark.parametrize(
    ("a", "b"), [("1", 1), (True, 1), (None, "null"), (0.1, 0.1 + 2**-55), ([], {}), ("", None), ([1, 2], [2, 1])]
)
def test_different_values_are_two(a: Any, b: Any) -> None:
    assert fit_signature({"lr": a}) != fit_signature({"lr": b})


def test_as_typed_on_the_command_line() -> None:
    typed = [OmegaConf.from_dotlist([word]) for word in ("lr=0.1", "lr=0.10", "lr=1e-1", "lr='0.1'")]
    first, second, third, text = map(fit_signature, typed)
    assert first == second == third
    assert text != first


def test_interpolations_count_by_what_they_resolve_to() -> None:
    cfg = OmegaConf.create({"size": 8, "backbone": {"size": "${size}"}, "paths": {"runs": "r"}})
    assert both(cfg) == both({"size": 8, "backbone": {"size": 8}})
    cfg.size = 16
    assert both(cfg) == both({"size": 16, "backbone": {"size": 16}})


def test_signing_leaves_the_config_alone() -> None:
    cfg = copy.deepcopy(CONFIG)
    both(cfg)
    assert cfg == CONFIG


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, r"^trainer\.lr\[1\]=nan: a setting must be a finite number$"),
        (-math.inf, r"^trainer\.lr\[1\]=-inf: "),
        (b"x", r"^trainer\.lr\[1\] is a bytes: "),
        ({1: 2}, r"^trainer\.lr\[1\] has the key 1: keys must be text"),
    ],
)
def test_what_cannot_be_signed_is_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_signature({"trainer": {"lr": [0, value]}})


@pytest.mark.parametrize("value", ["???", "${nowhere}", "${oc.env:NO_SUCH_VARIABLE_HERE}"])
def test_an_incomplete_config_is_one_line(value: str) -> None:
    with pytest.raises(ValueError, match=r"the config is not complete at trainer\.lr: ") as error:
        fit_signature(OmegaConf.create({"trainer": {"lr": value}}))
    assert "\n" not in str(error.value)
