"""What a search has found, as people read it: the best trials, or the Pareto front, and how to have them again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.files import atomic
from diffsweep.sweep.search.study import Search

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from rich.table import Table

_SHOWN = 10


def conclude(search: Search, study: Study) -> int:
    """Write optimization_results.yaml, show the best trials; 1 if any failed, else 0."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if complete:
        _write_yaml(search.folder / "optimization_results.yaml", _solutions(search, study))
        show(search, study)
    for trial in failed:
        reason = trial.user_attrs.get("reason", "no reason was recorded")
        print(f"trial {trial.number} failed: {reason}", file=sys.stderr)
        print(f"  {' '.join(search.overrides(trial.params))}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _solutions(search: Search, study: Study) -> dict[str, Any]:
    if len(search.directions) == 1:
        best = study.best_trial
        return {"name": "optuna", "best_evaluated_params": best.params, "best_evaluated_result": best.value}
    front = [{"params": trial.params, "values": list(trial.values)} for trial in study.best_trials]
    return {"name": "optuna", "solutions": front}


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    with atomic(path) as temporary:
        OmegaConf.save(OmegaConf.create(dict(content)), temporary)


def show(search: Search, study: Study) -> None:
    """Print the best trials, or the Pareto front, and the command that repeats the first of them."""
    from importlib.util import find_spec

    from optuna.trial import TrialState
    from rich.console import Console
    from rich.text import Text

    counts = dict.fromkeys(TrialState, 0)
    for trial in study.get_trials(deepcopy=False):
        counts[trial.state] += 1
    said = [f"{counts[state]} {state.name.lower()}" for state in TrialState if counts[state]]
    console = Console()
    # Lines for grep and awk are never wrapped; rich takes a pipe for 80 columns wide.
    console = console if console.is_terminal else Console(width=10_000)
    console.print(Text(f"study {search.name}: {', '.join(said)}"))
    best = study.best_trials if len(search.directions) > 1 else [study.best_trial]
    front = {trial.number for trial in best}
    console.print(_table(search, study, front, console.is_terminal))
    if len(search.directions) > 1:
        console.print(Text(f"* on the Pareto front: no trial is better in every objective ({len(front)} trials)"))
    words = [*search.shown, *search.overrides(best[0].params)]
    console.print(Text(f"best           python train.py {shlex.join(words)}"), soft_wrap=True)
    console.print(Text(f"its record     {best[0].user_attrs.get('result')}"), soft_wrap=True)
    if find_spec("optuna_dashboard") is not None:
        console.print(Text(f"pictures       optuna-dashboard {search.journal}"), soft_wrap=True)


def _table(search: Search, study: Study, front: set[int], terminal: bool) -> Table:
    from optuna.trial import TrialState
    from rich import box
    from rich.table import Table
    from rich.text import Text

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if search.directions[0] == "maximize" else 1
    trials.sort(key=lambda trial: (trial.number not in front, sign * trial.values[0]))
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    columns = ["trial", *_objectives(search, trials[0]), *search.space]
    for place, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if place > len(search.directions) else "right", overflow="fold")
    for trial in trials[: max(_SHOWN, len(front))]:
        mark = "*" if trial.number in front and len(search.directions) > 1 else ""
        cells = [f"{mark}{trial.number}", *map(_number, trial.values)]
        cells += [_number(trial.params.get(key)) for key in search.space]
        table.add_row(*map(Text, cells), style="bold" if trial.number in front and terminal else None)
    return table


def _objectives(search: Search, trial: FrozenTrial) -> tuple[str, ...]:
    return search.objective or (str(trial.user_attrs.get("metric", "value")),)


def line(search: Search, trial: FrozenTrial) -> str:
    """How a trial ended, in one line."""
    from optuna.trial import TrialState

    params = " ".join(f"{key}={_number(value)}" for key, value in trial.params.items())
    if trial.state == TrialState.COMPLETE:
        pairs = zip(_objectives(search, trial), trial.values, strict=True)
        said = "  ".join(f"{name} {_number(value)}" for name, value in pairs)
    elif trial.state == TrialState.PRUNED:
        said = f"pruned at step {trial.last_step}: {_number(trial.intermediate_values.get(trial.last_step or 0))}"
    else:
        said = f"failed: {trial.user_attrs.get('reason', 'no reason was recorded')}"
    return f"trial {trial.number}  {said}  {params}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
