"""One worker of a search, from its first trial to its last: take a slot, run it, tell its values, take the next.

`python -m diffsweep.entry.trial FOLDER INDEX` on this machine; in a SLURM job the same object is called. A trial is an
ordinary run: what is finished costs nothing, and equal trainings happen once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.mistakes import is_mistake, one_line
from diffsweep.sweep.search.study import PATIENCE, Mistake, Search
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.record import Run

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage


@dataclass(frozen=True)
class Worker:
    """Works at the search in `folder` until no trial waits. `index`: which of its workers, >= 0."""

    folder: Path
    index: int

    def __call__(self) -> None:
        """Return when no trial waits, or a mistake came up that no further trial can mend."""
        from optuna.trial import TrialState

        search = Search.read(self.folder)
        lease = Lease(search.worker_folder(self.index))
        try:
            # A job that its cluster has started again on another node has to see that its former self is dead.
            held = lease.acquire(wait=PATIENCE)
        except Busy as busy:
            print(busy, file=sys.stderr)
            return
        with held:
            me = lease.holder()
            assert me is not None
            _enter(search)
            study = search.open(f"{self.index}/{held.number}")
            storage = study._storage
            # A job that its cluster has started again finds what it had in its hands; that is nobody's fault.
            killed = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.user_attrs.get("worker") == self.index:
                    search.put_back(trial, storage, killed=killed)
            while not study.user_attrs.get("mistake") and (taken := search.take(study, storage)) is not None:
                taken.set_user_attr("process", me.asdict())
                taken.set_user_attr("worker", self.index)
                _work(search, study, storage, taken)

    def checkpoint(self) -> Any:
        """What submitit shall run when its job is queued again: the same. Trainings have checkpoints of their own."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _enter(search: Search) -> None:
    """Be where the user was: relative paths and the user's own modules mean the same."""
    os.chdir(search.hydra["runtime"]["cwd"])
    # The modules as they were when this worker was launched, if it runs from a snapshot.
    work = Path(__file__).parents[2] / "work"
    import_from(work if work.is_dir() else Path.cwd())


def _work(search: Search, study: Study, storage: BaseStorage, trial: Trial) -> None:
    """Run a trial to its end, whatever that is."""
    from optuna.trial import TrialState

    from diffsweep.training.scoring_callbacks import TrainingPruned

    state, values, mistake = TrialState.FAIL, None, None
    try:
        values = _values(search, trial)
        state = TrialState.COMPLETE
    except TrainingPruned:
        state = TrialState.PRUNED
    except (SystemExit, KeyboardInterrupt):
        frozen = study.get_trials(deepcopy=False)[trial.number]
        search.put_back(frozen, storage, killed=False)
        raise
    except Exception as error:
        mistake = str(error) if isinstance(error, Mistake) else None
        trial.set_user_attr("reason", one_line(error))
        print(f"trial {trial.number} failed: {one_line(error)}", file=sys.stderr, flush=True)
        if not is_mistake(error):
            traceback.print_exception(error)
    study.tell(trial, values, state, skip_if_finished=True)
    if mistake is not None:
        study.set_user_attr("mistake", mistake)


def _values(search: Search, trial: Trial) -> list[float]:
    from omegaconf import OmegaConf

    overrides = search.overrides(trial.params)
    print(f"trial {trial.number}: {' '.join(overrides)}", file=sys.stderr, flush=True)
    cfg, choices = search.compose(overrides)
    OmegaConf.resolve(cfg)
    run = Run.of(cfg, {group: option for group, option in choices.items() if option is not None})
    trial.set_user_attr("cell", run.cell.signature)
    trial.set_user_attr("result", str(run.cell.result_file))
    result = run.cell.result()
    if result is None:
        from diffsweep.runs.stages import complete

        result = complete(cfg, run, [*search.shown, *overrides], search.name, _watch(search, trial, cfg))
    assert result is not None, "a trial is one process"
    trial.set_user_attr("metric", result["metric"])
    return search.values(result)


def _watch(search: Search, trial: Trial, cfg: Any) -> Any:
    from diffsweep.training.scoring_callbacks import PruningPolicy

    rungs = search.rungs(cfg.training.steps)
    if not rungs:
        return None

    def report(step: int, metric: str, value: float) -> bool:
        if search.objective not in ((), (metric,)):
            raise Mistake(
                f"pruner={search.pruner['name']} judges by {metric}, not by hydra.sweeper.objective="
                f"{search.objective[0]}: choose hydra/sweeper/pruner=none"
            )
        trial.report(value, step)
        stop = trial.should_prune()
        print(f"trial {trial.number}: step {step} {metric} {value:.4g}{', pruned' if stop else ''}", file=sys.stderr)
        return stop

    return PruningPolicy(rungs, search.pruner["samples"], report)


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, _stop)
    Worker(Path(sys.argv[1]), int(sys.argv[2]))()
