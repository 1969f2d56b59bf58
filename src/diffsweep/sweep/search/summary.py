"""The summary of a search for people: its best trials, or its Pareto front, and the commands that repeat them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep import messages
from diffsweep.files import atomic
from diffsweep.messages import say
from diffsweep.project import train_command
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.search.search import Search
from diffsweep.sweep.search.study import SearchStudy

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.table import Table

_SHOWN = 10


def conclude(study: SearchStudy) -> int:
    """Write optimization_results.yaml and show the best trials; returns the exit code: 1 if any failed, else 0."""
    from optuna.trial import TrialState

    search = study.search
    if study.trials(TrialState.COMPLETE):
        _write_yaml(search.folder / "optimization_results.yaml", _solutions(study))
        show(study)
    failed = study.trials(TrialState.FAIL)
    for trial in failed:
        say(f"trial {trial.number} failed: {_failure(trial)}")
        say(f"  {' '.join(_overrides(search, trial))}")
    return 1 if failed else 0


def _overrides(search: Search, trial: FrozenTrial) -> list[str]:
    """The overrides of a trial that apply, as it has recorded them; of older searches all."""
    return trial.user_attrs.get("overrides") or search.overrides(trial.params)


def _solutions(study: SearchStudy) -> dict[str, Any]:
    if not study.search.objectives.several:
        best = study.study.best_trial
        return {"name": "optuna", "best_evaluated_params": best.params, "best_evaluated_result": best.value}
    front = [{"params": trial.params, "values": list(trial.values)} for trial in study.study.best_trials]
    return {"name": "optuna", "solutions": front}


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    with atomic(path) as temporary:
        OmegaConf.save(OmegaConf.create(dict(content)), temporary)


def show(study: SearchStudy) -> None:
    """Print the best trials, or the Pareto front, and the commands that repeat the best ones.

    With several objectives these are the best trial for each of them, and the most balanced one; see `balance`.
    """
    from importlib.util import find_spec

    from optuna.trial import TrialState
    from rich.text import Text

    search = study.search
    counts = dict.fromkeys(TrialState, 0)
    for trial in study.trials():
        counts[trial.state] += 1
    parts = [f"{counts[state]} {state.name.lower()}" for state in TrialState if counts[state]]
    console = messages.console()
    console.print(Text(f"study {search.name}: {', '.join(parts)}"))
    several = search.objectives.several
    front = balance(study.study.best_trials, search.objectives.directions) if several else [study.study.best_trial]
    console.print(_table(study, front, console.is_terminal))
    if several:
        console.print(Text(f"* on the Pareto front: no trial is better in every objective ({len(front)} trials)"))
    for name, trial in _chosen(search, front):
        words = [*search.composition.shown, *_overrides(search, trial)]
        console.print(Text(f"{name:<15}{train_command(*words)}"), soft_wrap=True)
        console.print(Text(f"{'its record':<15}{trial.user_attrs.get('result')}"), soft_wrap=True)
    more = Plan(search.folder, search.runs).command_for("resume")
    console.print(Text(f"{'more trials':<15}{more} --trials {2 * search.n_trials}"), soft_wrap=True)
    if find_spec("optuna_dashboard") is not None:
        console.print(Text(f"{'pictures':<15}optuna-dashboard {search.journal}"), soft_wrap=True)


def balance(front: Sequence[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """The trials of a Pareto front, the most balanced one first.

    Every objective is scaled to 0 for its best and 1 for its worst value on the front; a trial is as good as its worst
    scaled objective (the Chebyshev distance to the ideal point), then as the sum of all.
    """
    columns = list(zip(*(trial.values for trial in front), strict=True))

    def scaled(value: float, column: Sequence[float], direction: str) -> float:
        low, high = min(column), max(column)
        share = (value - low) / (high - low) if high > low else 0.0
        return share if direction == "minimize" or high == low else 1.0 - share

    def badness(trial: FrozenTrial) -> tuple[float, float, int]:
        shares = [scaled(*one) for one in zip(trial.values, columns, directions, strict=True)]
        return max(shares), sum(shares), trial.number

    return sorted(front, key=badness)


def _chosen(search: Search, front: Sequence[FrozenTrial]) -> list[tuple[str, FrozenTrial]]:
    """The trials whose commands are shown, by what they are best at. `front`: the most balanced one first."""
    if not search.objectives.several:
        return [("best", front[0])]
    chosen = [("balanced", front[0])]
    for place, (name, direction) in enumerate(
        zip(_objectives(search, front[0]), search.objectives.directions, strict=True)
    ):
        sign = -1 if direction == "maximize" else 1
        chosen.append((f"best {name}", min(front, key=lambda trial: sign * trial.values[place])))
    return chosen


def _table(study: SearchStudy, front: Sequence[FrozenTrial], terminal: bool) -> Table:
    from optuna.trial import TrialState
    from rich import box
    from rich.table import Table
    from rich.text import Text

    search = study.search
    several, directions = search.objectives.several, search.objectives.directions
    on_front = {trial.number for trial in front}
    others = [trial for trial in study.trials(TrialState.COMPLETE) if trial.number not in on_front]
    sign = -1 if directions[0] == "maximize" else 1
    others = balance(others, directions) if several else sorted(others, key=lambda trial: sign * trial.values[0])
    trials = [*front, *others]
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    columns = ["trial", *_objectives(search, trials[0]), *search.space]
    for place, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if place > len(directions) else "right", overflow="fold")
    for trial in trials[: max(_SHOWN, len(front))]:
        mark = "*" if trial.number in on_front and several else ""
        cells = [f"{mark}{trial.number}", *map(_number, trial.values)]
        cells += [_number(trial.params.get(key)) for key in search.space]
        table.add_row(*map(Text, cells), style="bold" if trial.number in on_front and terminal else None)
    return table


def _objectives(search: Search, trial: FrozenTrial) -> tuple[str, ...]:
    return search.objectives.named(str(trial.user_attrs.get("metric", "value")))


def trial_line(search: Search, trial: FrozenTrial) -> str:
    """How a trial ended, in one line."""
    from optuna.trial import TrialState

    params = " ".join(f"{key}={_number(value)}" for key, value in trial.params.items())
    if trial.state == TrialState.COMPLETE:
        pairs = zip(_objectives(search, trial), trial.values, strict=True)
        outcome = "  ".join(f"{name} {_number(value)}" for name, value in pairs)
    elif trial.state == TrialState.PRUNED:
        outcome = f"pruned at step {trial.last_step}: {_number(trial.intermediate_values.get(trial.last_step or 0))}"
    else:
        outcome = f"failed: {_failure(trial)}"
    return f"trial {trial.number}  {outcome}  {params}"


def _failure(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("reason", "no reason was recorded"))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
