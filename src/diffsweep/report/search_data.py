"""A search as plain values for the page: its trials, and how much each parameter matters, as Optuna estimates it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.sweep.search.search import Search
from diffsweep.sweep.search.study import SearchStudy

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

# With fewer trials than that nothing can be said of importance.
_ENOUGH = 4


def search_data(folder: Path) -> dict[str, Any] | None:
    """What a page shows of the search in `folder`; None if no trial of it is complete.

    Raises:
        ValueError: for a search that cannot be read.
    """
    from optuna.trial import TrialState

    search = Search.read(folder)
    if not search.journal.is_file():
        return None
    study = SearchStudy.open(search)
    complete = study.trials(TrialState.COMPLETE)
    if not complete:
        return None
    names = search.objectives.named(str(complete[0].user_attrs.get("metric", "value")))
    # Of one objective there is a best trial, of several a front.
    front = {trial.number for trial in study.study.best_trials}
    counts = {state: len(study.trials(state)) for state in TrialState}
    return {
        "objectives": [
            {"name": name, "larger": direction == "maximize"}
            for name, direction in zip(names, search.objectives.directions, strict=True)
        ],
        "params": list(search.space),
        "trials": [
            {
                "number": trial.number,
                "values": list(trial.values),
                "params": {key: _plain(value) for key, value in trial.params.items()},
                "cell": trial.user_attrs.get("cell"),
                "in_front": trial.number in front,
            }
            for trial in complete
        ],
        "counts": ", ".join(f"{number} {state.name.lower()}" for state, number in counts.items() if number),
        "importance": [_importance(study.study, complete, place) for place in range(len(names))],
    }


def _importance(study: Study, complete: Sequence[FrozenTrial], objective: int) -> Mapping[str, float]:
    """Parameter -> its share of what the parameters explain of an objective, largest first; empty if unknown."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len(complete) < _ENOUGH:
        return {}
    target: Callable[[FrozenTrial], float] = lambda trial: trial.values[objective]  # noqa: E731 (typed for Optuna)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # With a seed: a page that is made again says the same.
            found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), target=target)
        except (ImportError, ValueError, RuntimeError):
            # All values alike, or parameters that no two trials share.
            return {}
    return {key: float(share) for key, share in found.items()}


def _plain(value: object) -> object:
    return value if isinstance(value, (int, float, str, bool)) else str(value)
