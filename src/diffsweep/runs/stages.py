"""The stages of a run, (autoencoder ->) fit -> cell; each is done once, by one process group, whoever asks.

A lease on the folder of each keeps two processes from doing the same work; what is finished is read back. So a sweep
needs no knowledge of what its runs share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffsweep.compilation import keep_compiled
from diffsweep.interop.imported import Import
from diffsweep.messages import say
from diffsweep.mistakes import is_from_own_code, one_of
from diffsweep.ranks import is_first_rank
from diffsweep.runs.autoencoder import has_latents, latent_source, load_autoencoder
from diffsweep.runs.build import Components
from diffsweep.runs.instantiate import make
from diffsweep.scoring.score import score as score_model
from diffsweep.sweep.store.blocked import BlockedError
from diffsweep.sweep.store.environment import recorded
from diffsweep.sweep.store.lease import Lease, LeaseLostError
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import (
    AutoencoderRecord,
    CannotWriteError,
    Record,
    Run,
    TrainingRecord,
    make_folder,
)
from diffsweep.sweep.store.result import Result
from diffsweep.tracking import loggers
from diffsweep.tracking.run_info import RunInfo
from diffsweep.trainer import Interrupted
from diffsweep.training.fit import fit as train_model
from diffsweep.training.fit_autoencoder import AutoencoderStage, fit_autoencoder, write_latents
from diffsweep.training.scoring_callbacks import PruningPolicy, TrainingPruned

# In their order: how far a single run may go.
STAGES = ("autoencoder", "fit", "cell")


def complete(
    cfg: DictConfig, run: Run, overrides: list[str], sweep: str | None = None, pruning: PruningPolicy | None = None
) -> Result | None:
    """The result of a run, doing what is missing of it: `encode`, `train`, then `score`.

    Args:
        cfg: The composed config.
        run: Its record.
        overrides: What the user asked for, to be recorded.
        sweep: Name of the sweep it belongs to.
        pruning: When and by whom the training may be stopped.

    Returns:
        The result; None on ranks other than the first, which only lend a hand, and if the config's `stage` is another
        than the cell.

    Raises:
        ValueError: for a bad value or choices that do not go together, before anything is written.
        Interrupted: after a signal, with the training's state saved.
        TrainingPruned: likewise, if `pruning` stopped it.
    """
    components = build(cfg)
    last = one_of("stage", cfg.get("stage", "cell"), STAGES)
    with _recorded(_record_of(run, last)):
        _make_autoencoder(cfg, components, run, sweep)
        if last == "autoencoder":
            return None
        _train(cfg, components, run, sweep, pruning)
        return _score(cfg, components, run, overrides, sweep) if last == "cell" else None


def _record_of(run: Run, stage: str) -> Record:
    """Where a failure on the way to a stage is recorded."""
    if stage == "autoencoder":
        if run.autoencoder is None:
            raise ValueError("stage=autoencoder, and this run has none: choose autoencoder=kl, vq or pretrained")
        return run.autoencoder
    return run.fit if stage == "fit" else run.cell


def make_autoencoder(cfg: DictConfig, run: Run, sweep: str | None = None) -> None:
    """Make the autoencoder of a run and the latents of its data, unless that is done.

    Arguments and errors as `complete`.
    """
    assert run.autoencoder is not None
    # A job of its own has one device, however many a fit has; no result depends on that.
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    with _recorded(run.autoencoder):
        cfg = OmegaConf.create({**cfg, "trainer": {**cfg.trainer, **alone}})
        _make_autoencoder(cfg, build(cfg), run, sweep)


def train(cfg: DictConfig, run: Run, sweep: str | None = None) -> None:
    """Train the fit of a run whose autoencoder, if it has one, is finished; arguments and errors as `complete`.

    Raises:
        ValueError: also if the autoencoder is not finished.
    """
    with _recorded(run.fit):
        _refuse_unfinished(run.autoencoder)
        _train(cfg, build(cfg), run, sweep)


def score(cfg: DictConfig, run: Run, overrides: list[str], sweep: str | None = None) -> Result | None:
    """The result of a run whose fit is trained; arguments, result and errors as `complete`.

    Raises:
        ValueError: also if the fit is not trained.
    """
    with _recorded(run.cell):
        _refuse_unfinished(run.autoencoder)
        _refuse_unfinished(run.fit)
        return _score(cfg, build(cfg), run, overrides, sweep)


def _refuse_unfinished(record: TrainingRecord | None) -> None:
    if record is not None and not record.done:
        raise BlockedError(record.signature, record.error() or "it was never trained", record.noun)


def build(cfg: DictConfig) -> Components:
    """What a run is made of. Raises ValueError, in one line, if that cannot be built."""
    keep_compiled(Path(cfg.paths.cache) / "compiled")
    try:
        for name in cfg.logger or {}:
            make(cfg, f"logger.{name}")
        return Components.of(cfg)
    except (AttributeError, TypeError, RuntimeError, LookupError, OmegaConfBaseException) as error:
        if is_from_own_code(error):
            raise
        # A value of the wrong type breaks where it is first used, in words that are not the user's.
        raise ValueError(f"this configuration cannot be built: {' '.join(str(error).split())}") from error


def _make_autoencoder(cfg: DictConfig, components: Components, run: Run, sweep: str | None) -> None:
    """Make the autoencoder unless that is done, or there is none, and load it."""
    stage, record = components.autoencoder, run.autoencoder
    if stage is None:
        return
    assert record is not None
    if not is_first_rank():
        # It takes one device; its weights are needed by all.
        while not record.done:
            time.sleep(0.5)
    with _alone(record, "trained") as held:
        if not record.done:
            with _mirrored(cfg, run, record, "autoencoder", sweep) as mirrors:
                record.write_config(cfg)
                fit_autoencoder(stage, record, mirrors, held)
    load_autoencoder(stage.dataset, record)


def _train(
    cfg: DictConfig, components: Components, run: Run, sweep: str | None, pruning: PruningPolicy | None = None
) -> None:
    with _alone(run.fit, "trained") as held:
        if not run.fit.done:
            _load_autoencoder(components, run)
            fit(cfg, components, run, held, sweep, pruning)


def _score(cfg: DictConfig, components: Components, run: Run, overrides: list[str], sweep: str | None) -> Result | None:
    with _alone(run.cell, "evaluated") as held:
        done = run.cell.result()
        if done is None:
            _load_autoencoder(components, run)
        return done if done is not None else evaluate(cfg, components, run, overrides, sweep, held)


def _load_autoencoder(components: Components, run: Run) -> None:
    if components.autoencoder is not None:
        assert run.autoencoder is not None
        load_autoencoder(components.autoencoder.dataset, run.autoencoder)


@contextlib.contextmanager
def _recorded(record: Record) -> Iterator[None]:
    """Leave the reason in `record` if the block fails."""
    try:
        yield
    except Exception as error:
        # What another process works on now is its to record.
        if is_first_rank() and not isinstance(error, LeaseLostError):
            with contextlib.suppress(OSError, CannotWriteError):
                blocked = {"blocked_by": error.needed} if isinstance(error, BlockedError) else {}
                record.write_status("failed", reason=record.write_error(error), **blocked)
        raise


def fit(
    cfg: DictConfig,
    components: Components,
    run: Run,
    held: Callable[[], bool] = lambda: True,
    sweep: str | None = None,
    pruning: PruningPolicy | None = None,
) -> None:
    """Train the fit of a run; see `training.fit`.

    Args:
        cfg: The composed config, to be recorded.
        components: What it describes.
        run: Its record.
        held: Whether this process still has the right to train it.
        sweep: Name of the sweep it belongs to.
        pruning: When and by whom the training may be stopped.
    """
    with _mirrored(cfg, run, run.fit, "fit", sweep) as mirrors:
        if is_first_rank():
            make_folder(run.fit.folder)
            run.fit.write_config(cfg)
        if isinstance(components.fitting, Import):
            if is_first_rank():
                components.fitting(run.fit)
            return
        latents = None
        if components.autoencoder is not None and run.autoencoder is not None:
            _complete_latents(components.autoencoder, run.autoencoder)
            latents = latent_source(components.autoencoder.dataset, run.autoencoder)
        fitting = dataclasses.replace(components.fitting, pruning=pruning, latents=latents)
        train_model(fitting, run.fit, mirrors, held)


def _complete_latents(stage: AutoencoderStage, record: AutoencoderRecord) -> None:
    """Write the latents that an autoencoder lacks which was finished for models that are not trained in them."""
    if is_first_rank() and not has_latents(record):
        with _alone(record, "completed"):
            if not has_latents(record):
                write_latents(stage, record)
    while not has_latents(record):
        time.sleep(0.5)


def evaluate(
    cfg: DictConfig,
    components: Components,
    run: Run,
    overrides: list[str],
    sweep: str | None = None,
    held: Callable[[], bool] = lambda: True,
) -> Result | None:
    """Score the cell of a run whose fit is finished; see `scoring.score`."""
    with _mirrored(cfg, run, run.cell, "cell", sweep) as mirrors:
        if is_first_rank():
            make_folder(run.cell.folder)
            run.cell.write_config(cfg)
        seed = None if isinstance(components.fitting, Import) else components.fitting.settings.seed
        result = score_model(components.scoring, run, overrides, seed, sweep, held)
        if result is not None:
            for mirror in mirrors:
                loggers.log_result(mirror, result, run.cell.samples_file)
    return result


@contextlib.contextmanager
def _alone(record: Record, verb: str) -> Iterator[Callable[[], bool]]:
    """Hold the record's lease, and tell whether it still is; helping ranks must not ask for what their leader holds."""
    if not is_first_rank():
        yield lambda: True
        return

    def waiting(holder: Process | None) -> None:
        say(f"{record.noun} {record.signature} is being {verb} by {holder}; waiting for it (Ctrl-C leaves it alone)")

    make_folder(record.folder)
    with Lease(record.folder).acquire(on_wait=waiting) as lease:
        yield lease.still_held


@contextlib.contextmanager
def _mirrored(
    cfg: DictConfig, run: Run, record: Record, kind: Literal["autoencoder", "fit", "cell"], sweep: str | None
) -> Iterator[list[Logger]]:
    """The loggers of an autoencoder, a fit or a cell, ended with it; only the first rank has any."""
    mirrors = []
    if is_first_rank():
        info = RunInfo.of(kind, record.folder, recorded(cfg), run.choices, sweep)
        mirrors = [make(cfg, f"logger.{name}")(info) for name, entry in (cfg.logger or {}).items() if entry]
    failed = preempted = False
    try:
        yield mirrors
    except BaseException as error:
        # One that is interrupted goes on later, and one that is pruned has not failed.
        failed, preempted = not isinstance(error, TrainingPruned), isinstance(error, Interrupted)
        raise
    finally:
        for mirror in mirrors:
            command = loggers.close(mirror, failed=failed, preempted=preempted)
            if command:
                say(f"W&B is offline; to send this run: {command}")
