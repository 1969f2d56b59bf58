"""What was signed before is signed the same: a moved signature would train and evaluate every finished run again.

`data/signatures.json` was made with version 0.1, by the functions of `signature_list`:

    options         {command: [fit, cell]}   every option of every group, alone against the defaults
    combinations    {command: [fit, cell]}   300 random ones of options and values
    plans           {command: {"tasks": [[overrides, fit, cell], ...], "needs": {fit: [fits that it waits for]}}}
                                             the studies of sweeps/, and a sweep with a fit that another one needs

An entry may be added; none may ever be changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import signature_list
from diffsweep.former_names import REPLACED_KEYS
from signature_list import Signatures

LIST: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "signatures.json").read_text(encoding="utf-8"))
# Without commands with a key that is there no more.
COMBINATIONS = {
    command: names
    for command, names in LIST["combinations"].items()
    if not {word.partition("=")[0] for word in command.split()} & REPLACED_KEYS.keys()
}


def moved(now: dict[str, Signatures], before: dict[str, Signatures]) -> list[str]:
    """One line for each command whose fit or cell is not signed as before."""
    return [
        f"{command}: the {kind} was {was}, is {name}"
        for command, names in before.items()
        for kind, was, name in zip(("fit", "cell"), names, now[command], strict=True)
        if name != was
    ]


def test_every_option_of_every_group_is_signed_as_before() -> None:
    assert moved(signature_list.single_runs(LIST["options"]), LIST["options"]) == []


def test_random_combinations_of_options_and_values_are_signed_as_before() -> None:
    assert moved(signature_list.cells(COMBINATIONS), COMBINATIONS) == []
    assert len(COMBINATIONS) > 280


def test_some_of_the_combinations_are_signed_the_same_as_single_runs() -> None:
    some = dict(list(COMBINATIONS.items())[8::20])
    assert moved(signature_list.single_runs(some), some) == []


@pytest.mark.parametrize("command", LIST["plans"])
def test_a_sweep_is_planned_as_before(command: str) -> None:
    before, plan = LIST["plans"][command], signature_list.plan(command)
    now = {" ".join(task.overrides): [task.fit, task.cell] for task in plan.tasks}
    then = {overrides: [fit, cell] for overrides, fit, cell in before["tasks"]}
    assert list(now) == list(then)
    assert moved(now, then) == []
    assert list(plan.cells) == list(dict.fromkeys(cell for _, _, cell in before["tasks"]))
    fits = {fit: [cell for _, other, cell in before["tasks"] if other == fit] for _, fit, _ in before["tasks"]}
    assert plan.fits == {fit: list(dict.fromkeys(cells)) for fit, cells in fits.items()}
    assert {fit: list(needs) for fit, needs in plan.needs.items() if needs} == before["needs"]
