"""A worker of a search: it takes a waiting trial, runs it, tells its values, and takes the next one.

`python -m diffsweep.entry.trial FOLDER INDEX` on this machine; in a SLURM job the same object is called. A trial is an
ordinary run: what is finished costs nothing, and equal trainings happen once.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.messages import say, say_traceback
from diffsweep.mistakes import is_mistake, one_line
from diffsweep.sweep.plan.snapshot import import_user_modules
from diffsweep.sweep.search.objectives import InvalidSearchError
from diffsweep.sweep.search.search import Search
from diffsweep.sweep.search.study import SearchStudy
from diffsweep.sweep.search.worker_leases import PATIENCE, WorkerLeases
from diffsweep.sweep.store.lease import Busy
from diffsweep.sweep.store.record import Run

if TYPE_CHECKING:
    from optuna import Trial


@dataclass(frozen=True)
class Worker:
    """Runs trials of the search in `folder` until none waits. `index`: the number of this worker, >= 0."""

    folder: Path
    index: int

    def __call__(self) -> None:
        """Return when no trial waits, or a mistake came up that no further trial can mend.

        Where no launcher is left that would do it, the last worker writes the search's table.
        """
        from optuna.trial import TrialState

        from diffsweep.entry import sweep_end
        from diffsweep.sweep.search.supervisor import end_without_launcher

        search = Search.read(self.folder)
        lease = WorkerLeases(search.folder).of(self.index)
        try:
            # A job that SLURM has started again on another node must first see that the earlier process is dead.
            held = lease.acquire(wait=PATIENCE)
        except Busy as busy:
            say(str(busy))
            return
        with held:
            me = lease.holder()
            assert me is not None
            # Relative paths and the user's own modules mean the same as for the user.
            os.chdir(search.cwd)
            import_user_modules(search.cwd)
            study = SearchStudy.open(search, f"{self.index}/{held.number}")
            # The trial of a job that SLURM has started again was interrupted, and did not kill its process.
            killed = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
            for trial in study.trials(TrialState.RUNNING):
                if trial.user_attrs.get("worker") == self.index:
                    study.put_back(trial, killed=killed)
            while not study.mistake and (trial := study.take()) is not None:
                trial.set_user_attr("process", me.asdict())
                trial.set_user_attr("worker", self.index)
                _run_trial(study, trial)
            if end_without_launcher(study):
                sweep_end.show(search.folder, search.runs)

    def checkpoint(self) -> Any:
        """What submitit shall run when its job is queued again: the same. Trainings have checkpoints of their own."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _run_trial(study: SearchStudy, trial: Trial) -> None:
    """Run a trial and tell the study how it ended."""
    from optuna.trial import TrialState

    from diffsweep.training.scoring_callbacks import TrainingPruned

    state, values, mistake = TrialState.FAIL, None, None
    try:
        values = _values(study.search, trial)
        state = TrialState.COMPLETE
    except TrainingPruned:
        state = TrialState.PRUNED
    except (SystemExit, KeyboardInterrupt):
        study.put_back(study.trials()[trial.number], killed=False)
        raise
    except Exception as error:
        mistake = str(error) if isinstance(error, InvalidSearchError) else None
        trial.set_user_attr("reason", one_line(error))
        say(f"trial {trial.number} failed: {one_line(error)}")
        if not is_mistake(error):
            say_traceback(error)
    study.study.tell(trial, values, state, skip_if_finished=True)
    if mistake is not None:
        study.set_mistake(mistake)


def _values(search: Search, trial: Trial) -> list[float]:
    cfg, choices, overrides = search.compose(search.overrides(trial.params))
    say(f"trial {trial.number}: {' '.join(overrides)}")
    trial.set_user_attr("overrides", overrides)
    run = Run.of(cfg, {group: option for group, option in choices.items() if option is not None})
    trial.set_user_attr("cell", run.cell.signature)
    trial.set_user_attr("result", str(run.cell.result_file))
    result = run.cell.result()
    if result is None:
        from diffsweep.runs.stages import complete

        result = complete(cfg, run, [*search.composition.shown, *overrides], search.name, _watch(search, trial, cfg))
    assert result is not None, "a trial is one process"
    trial.set_user_attr("metric", result.metric)
    return search.objectives.values(result)


def _watch(search: Search, trial: Trial, cfg: Any) -> Any:
    from diffsweep.training.scoring_callbacks import PruningPolicy

    rungs = search.strategy.rungs(cfg.training.steps)
    if not rungs:
        return None

    def report(step: int, metric: str, value: float) -> bool:
        if search.objectives.named(metric) != (metric,):
            raise InvalidSearchError(
                f"pruner={search.strategy.pruner['name']} judges by {metric}, not by hydra.sweeper.objective="
                f"{search.objectives.keys[0]}: choose hydra/sweeper/pruner=none"
            )
        trial.report(value, step)
        stop = trial.should_prune()
        say(f"trial {trial.number}: step {step} {metric} {value:.4g}{', pruned' if stop else ''}")
        return stop

    return PruningPolicy(rungs, search.strategy.pruner["samples"], report)


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, _stop)
    Worker(Path(sys.argv[1]), int(sys.argv[2]))()
