"""What to run after a run: another choice that reuses its training first, since that costs least."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffsweep.project import train_command
from diffsweep.sweep.store.override_words import split
from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import CHOICES, Result


def next_commands(result: Result, runs: str | Path = "runs") -> list[tuple[str, str]]:
    """A few sensible commands to type after the run `result`, each with what it is good for."""
    if result.images is not None:
        words = [f"dataset={result.option('dataset')}", *(["--runs", str(runs)] if str(runs) != "runs" else [])]
        return [(f"diffsweep results {shlex.join(words)}", "beside everything compared with the same data")]
    imported = result.imported_from is not None
    kept = [word for word in split(result.overrides) if _is_needed(word) and not (imported and _is_chosen(word))]

    def command(*changed: str, multirun: bool = False) -> str:
        groups = {word.partition("=")[0] for word in changed}
        # Another option of a group may lack the settings of this one; only the budget is common to all samplers.
        gone = tuple(f"{group}{mark}" for group in groups if group in CHOICES for mark in "./")
        keys = [(word.lstrip("+").partition("=")[0], word) for word in kept]
        words = [word for key, word in keys if key not in groups and (key == "sampler.nfe" or not key.startswith(gone))]
        return train_command(*(["-m"] if multirun else []), *words, *changed)

    def other(group: str, first: str, second: str) -> str:
        return second if result.option(group) == first else first

    if is_consistency_model(Cell.of(result, runs).config()):
        return _of_consistency_model(result, command)
    sampler, schedule = other("sampler", "heun", "ddim"), other("schedule", "cosine", "linear")
    both = [f"{group}={result.option(group) or kind},{kind}" for group, kind in _pairs(sampler, schedule, result)]
    if imported:
        many = ",".join(dict.fromkeys([result.option("sampler") or "ddim", "ddim", "dpmpp_2m", "unipc", "heun"]))
        return [
            (command(f"sampler={sampler}"), "another sampler of the same model"),
            (
                command(f"sampler={many}", "sampler.nfe=5,10,20", multirun=True),
                "which sampler at which cost, in one table; nothing is trained",
            ),
        ]
    commands = [(command(f"sampler={sampler}"), "another sampler: reuses this training")]
    budget = result.nfe_requested or result.nfe
    if isinstance(budget, int):
        commands.append((command(f"sampler.nfe={2 * budget}"), "twice the network calls: reuses this training"))
    commands.append((command(f"schedule={schedule}"), "another noise schedule: trains again"))
    commands.append((command(*both, multirun=True), "all four combinations in one table: two trainings"))
    return commands


def _is_chosen(word: str) -> bool:
    """Whether `pretrained=` chooses an option by itself."""
    return word.endswith("=imported")


# Trainings of models that jump to clean data at once: many small steps only add to their error.
_CONSISTENCY = "diffsweep.diffusion.consistency."


def is_consistency_model(config: Mapping[str, Any]) -> bool:
    """Whether the frozen config of a run is that of a consistency model."""
    diffuser = config.get("diffuser")
    return isinstance(diffuser, Mapping) and str(diffuser.get("_target_")).startswith(_CONSISTENCY)


def _of_consistency_model(result: Result, command: Callable[..., str]) -> list[tuple[str, str]]:
    """Such a model is sampled in one to four steps by the sampler that is made for it."""
    if result.option("sampler") != "consistency":
        return [(command("sampler=consistency", "sampler.nfe=2"), "the sampler of such models: reuses this training")]
    budget = 1 if result.nfe_requested == 2 else 2
    steps = "one step" if budget == 1 else "two steps"
    return [
        (command(f"sampler.nfe={budget}"), f"{steps}: reuses this training"),
        (command("sampler.nfe=1,2,4", multirun=True), "one, two and four steps in one table: reuse this training"),
    ]


def _is_needed(word: str) -> bool:
    """Whether an override of a cell belongs to another run of its kind: not how it was launched, and in which sweep."""
    if word.startswith("sweep.name="):
        return False
    return not word.startswith("hydra") or word.startswith("hydra.searchpath=")


def _pairs(sampler: str, schedule: str, result: Result) -> list[tuple[str, str]]:
    defaults = {"sampler": "ddim" if sampler == "heun" else "heun", "schedule": "linear"}
    chosen = {group: result.option(group) or default for group, default in defaults.items()}
    return [(group, kind) for group, kind in (("sampler", sampler), ("schedule", schedule)) if chosen[group] != kind]
