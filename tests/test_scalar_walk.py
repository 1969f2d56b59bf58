"""Every scalar key of every option with wrong values: refused in one line that names the key, or they make sense.

A sample of the walk runs always; `pytest -m whole tests/test_scalar_walk.py` walks all of it.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from diffsweep.mistakes import is_mistake, one_line
from diffsweep.runs.stages import build
from diffsweep.sweep.plan.folders import refuse_impossible_folders
from diffsweep.sweep.plan.mode import Mode
from diffsweep.sweep.plan.unread_keys import refuse_unread
from diffsweep.sweep.store.record import Run
from test_conf import COMPANIONS, OPTIONS, UNAVAILABLE, choice, composed, group, package

WRONG: dict[str, Any] = {
    "text": "abc",
    "true": True,
    "zero": 0,
    "negative": -1,
    "half": 0.5,
    "huge": 10**30,
    "nan": float("nan"),
    "infinite": float("inf"),
    "null": None,
    "list": [1, 2],
    "mapping": {"a": 1},
    "empty": "",
}
# What no number can be spelled as.
NO_NUMBERS = ("text", "true", "nan", "list", "mapping", "empty")

# Groups whose options are walked on points of a plane with a small network, where they build there.
POINTS = ["dataset=mixture", "dataset.size=500", "backbone=mlp", "backbone.width=8", "backbone.depth=1"]
IMAGES = ["backbone.width=8", "backbone.patch=2"]
# One option in so many, and of its wrong values one in so many, are tried always.
SOME_OPTIONS, SOME_VALUES = 10, 8
# What a config says about other processes than those that build.
ELSEWHERE = ("hydra", "logger", "resources")


def base(overrides: list[str], option: str) -> DictConfig | None:
    """A config that builds with the option, the cheapest that there is."""
    for words in ([*POINTS, *overrides], [*overrides, *COMPANIONS.get(option, []), *IMAGES], overrides):
        try:
            cfg = composed(*words, *(COMPANIONS.get(option, []) if words is overrides else []))
            build(cfg)
        except Exception:
            continue
        return cfg
    return None


@functools.cache
def config_of(path: Path | None) -> DictConfig | None:
    return base([], "") if path is None else base([choice(path)], choice(path))


def leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every scalar below."""
    if isinstance(node, DictConfig):
        for key in node:
            if str(key)[0] != "_":
                yield from leaves(node._get_node(key), f"{path}.{key}" if path else str(key))
    elif not isinstance(node, ListConfig):
        yield path, node._value()


def walked() -> list[Path | None]:
    """The options whose keys are walked, and None for the keys of the defaults."""
    skipped = (*ELSEWHERE, "experiment", "sweeps")
    return [
        None,
        *(path for path in OPTIONS if choice(path) not in UNAVAILABLE and group(path).split("/")[0] not in skipped),
    ]


def walk(path: Path | None) -> Iterator[tuple[Path | None, str, str]]:
    """(option, key, kind of wrong value), in an order that never changes; nothing for what cannot be built here."""
    cfg = config_of(path)
    if cfg is None:
        return
    if path is None:
        keys = [key for top in cfg if top not in ELSEWHERE for key, _ in leaves(cfg._get_node(top), str(top))]
    else:
        place = package(path)
        node = OmegaConf.select(cfg, place) if place else None
        keys = [key for key, _ in leaves(node, place)] if node is not None else []
    for key in sorted(keys):
        yield from ((path, key, kind) for kind in WRONG)


def chosen(name: str, one_in: int) -> bool:
    """Whether a name belongs to the sample: the same names always, spread evenly."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % one_in == 0


def answer(path: Path | None, key: str, kind: str) -> str:
    """How a wrong value is answered: "refused", "accepted", or what is wrong with the answer."""
    cfg = copy.deepcopy(config_of(path))
    assert cfg is not None
    before = OmegaConf.select(cfg, key)
    with open_dict(cfg):
        OmegaConf.update(cfg, key, WRONG[kind], merge=False, force_add=True)
    try:
        refuse_unread(cfg)
        refuse_impossible_folders(cfg.paths)
        Mode.of(cfg)
        Run.of(cfg)
        build(cfg)
    except Exception as error:
        if not is_mistake(error):
            return f"a traceback: {type(error).__name__}: {str(error)[:100]}"
        line = one_line(error)
        named = any(name in line for name in (key, key.rpartition(".")[2], *_following(config_of(path), key)))
        # What a sampler does to an exact model is the work of all of its settings.
        named = named or (key.startswith("sampler.") and "with an exact model" in line)
        # What is wrong in a folder is said of the folder.
        named = named or (kind == "text" and line.startswith("abc "))
        return "refused" if named and "\n" not in line else f"no name of the key: {line[:200]}"
    is_number = isinstance(before, (int, float)) and not isinstance(before, bool)
    if is_number and kind in NO_NUMBERS:
        return f"accepted in place of {before}"
    return "accepted"


def _following(cfg: DictConfig | None, key: str) -> list[str]:
    """The keys whose value is that of `key`, as sampler.solver.limit is sampler.nfe."""
    last = key.rpartition(".")[2]
    return [name for name, value in leaves(cfg, "") if isinstance(value, str) and "${" in value and last in value]


def faults(tried: list[tuple[Path | None, str, str]]) -> tuple[list[str], Counter[str]]:
    """The wrong answers, and how many of each kind there are."""
    said, counts = [], Counter[str]()
    for path, key, kind in tried:
        found = answer(path, key, kind)
        counts[found if found in ("refused", "accepted") else "wrong"] += 1
        if found not in ("refused", "accepted"):
            said.append(f"{choice(path) if path else 'defaults'}: {key}={kind}: {found}")
    return said, counts


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wrong path makes is made in a folder of the test."""
    monkeypatch.chdir(tmp_path)


def test_a_sample_of_wrong_values_is_answered_in_one_line() -> None:
    options = [path for path in walked() if path is None or chosen(choice(path), SOME_OPTIONS)]
    every = [one for path in options for one in walk(path)]
    tried = [one for one in every if chosen(f"{one[0] and choice(one[0])} {one[1]} {one[2]}", SOME_VALUES)]
    said, counts = faults(tried)
    print(f"{len(tried)} of {len(every)} wrong values of {len(options)} options: {dict(counts)}")
    assert len(tried) > 50
    assert not said, "\n".join(said)


@pytest.mark.whole
@pytest.mark.timeout(7200)
def test_every_wrong_value_is_answered_in_one_line() -> None:
    every = [one for path in walked() for one in walk(path)]
    said, counts = faults(every)
    print(f"{len(every)} wrong values: {dict(counts)}")
    assert len(every) > 5000
    assert not said, "\n".join(said)
