"""The three stages of a run, fit -> sample -> evaluate; each is done once, by one process group, whoever asks.

A lease on the fit's folder and one on the cell's keep two processes from doing the same work; what is finished is
read back. So a sweep needs no knowledge of what its runs share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import save_file

from diffsweep.evaluation.pictures import grid
from diffsweep.messages import say
from diffsweep.ranks import is_first_rank
from diffsweep.runs.build import Parts
from diffsweep.runs.instantiate import make
from diffsweep.scoring.measure import measure
from diffsweep.scoring.model_metrics import measure_model
from diffsweep.scoring.sampling import draw
from diffsweep.scoring.weights import load_weights
from diffsweep.sweep.store.blocked import BlockedError
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.record import (
    CHOICES,
    CannotWriteError,
    Cell,
    Fit,
    Record,
    Run,
    atomic,
    make_folder,
    provenance,
    read_metrics,
)
from diffsweep.tracking import loggers
from diffsweep.tracking.run_info import RunInfo
from diffsweep.trainer import Interrupted, make_trainer
from diffsweep.training.batches import Batches
from diffsweep.training.checkpoint import Checkpoints
from diffsweep.training.ema import averaged, ema
from diffsweep.training.module import Training
from diffsweep.training.progress import Progress
from diffsweep.training.sample_pictures import Glimpses
from diffsweep.training.scoring_callbacks import Draft, Pruned, Rungs, Scorer, Validating, Watch

GRID = 100


def complete(
    cfg: DictConfig, run: Run, overrides: list[str], sweep: str | None = None, watch: Watch | None = None
) -> dict[str, Any] | None:
    """The result of a run, doing what is missing of it: `train`, then `score`.

    Args:
        cfg: The composed config.
        run: Its record.
        overrides: What the user asked for, to be recorded.
        sweep: Name of the sweep it belongs to.
        watch: Who may stop the training at one of its rungs.

    Returns:
        The flat result; None on ranks other than the first, which only lend a hand.

    Raises:
        ValueError: for a bad value or choices that do not go together, before anything is written.
        Interrupted: after a signal, with the training's state saved.
        Pruned: likewise, if `watch` stopped it.
    """
    parts = build(cfg)
    with _recorded(run.cell):
        _train(cfg, parts, run, sweep, watch)
        return _score(cfg, parts, run, overrides, sweep)


def train(cfg: DictConfig, run: Run, sweep: str | None = None) -> None:
    """Train the fit of a run, unless that is done; arguments and errors as `complete`."""
    with _recorded(run.fit):
        _train(cfg, build(cfg), run, sweep)


def score(cfg: DictConfig, run: Run, overrides: list[str], sweep: str | None = None) -> dict[str, Any] | None:
    """The result of a run whose fit is trained; arguments, result and errors as `complete`.

    Raises:
        ValueError: also if the fit is not trained.
    """
    with _recorded(run.cell):
        if not run.fit.done:
            raise BlockedError(run.fit.signature, run.fit.error() or "it was never trained")
        return _score(cfg, build(cfg), run, overrides, sweep)


def build(cfg: DictConfig) -> Parts:
    """What a run is made of. Raises ValueError, in one line, if that cannot be built."""
    try:
        for name in cfg.logger or {}:
            make(cfg, f"logger.{name}")
        return Parts.of(cfg)
    except (AttributeError, TypeError, RuntimeError, LookupError, OmegaConfBaseException) as error:
        # A value of the wrong type breaks where it is first used, in words that are not the user's.
        raise ValueError(f"this configuration cannot be built: {' '.join(str(error).split())}") from error


def _train(cfg: DictConfig, parts: Parts, run: Run, sweep: str | None, watch: Watch | None = None) -> None:
    with _alone(run.fit, "trained") as held:
        if not run.fit.done:
            fit(cfg, parts, run, held, sweep, watch)


def _score(cfg: DictConfig, parts: Parts, run: Run, overrides: list[str], sweep: str | None) -> dict[str, Any] | None:
    with _alone(run.cell, "evaluated") as held:
        done = run.cell.result()
        return done if done is not None else evaluate(cfg, parts, run, overrides, sweep, held)


@contextlib.contextmanager
def _recorded(record: Record) -> Iterator[None]:
    """Leave the reason in `record` if the block fails."""
    try:
        yield
    except Exception as error:
        if is_first_rank():
            with contextlib.suppress(OSError, CannotWriteError):
                blocked = {"blocked_by": error.fit} if isinstance(error, BlockedError) else {}
                record.write_status("failed", reason=record.write_error(error), **blocked)
        raise


class _Data(LightningDataModule):
    """Puts the data on the device once and starts the batches at the checkpoint's step."""

    def __init__(self, batches: functools.partial[Batches], x: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.batches, self.x, self.labels = batches, x, labels

    def train_dataloader(self) -> Batches:
        trainer: Any = self.trainer
        device = trainer.strategy.root_device
        return self.batches(
            self.x.to(device),
            self.labels.to(device),
            start=trainer.global_step,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        )


def fit(
    cfg: DictConfig,
    parts: Parts,
    run: Run,
    held: Callable[[], bool] = lambda: True,
    sweep: str | None = None,
    watch: Watch | None = None,
) -> None:
    """Train, from the last checkpoint if there is one, and leave the averaged weights and done.json.

    Args:
        cfg: The composed config.
        parts: What it is made of.
        run: Its record.
        held: Whether this process still has the right to train it.
        sweep: Name of the sweep it belongs to.
        watch: Who may stop it at one of its rungs.

    Raises:
        ValueError: for data that cannot be had, a loss that diverges, a checkpoint that cannot be read.
        Interrupted: after SIGTERM or SIGINT, with the state saved.
        Pruned: after `watch` stopped it, with the state saved.
    """
    with _mirrored(cfg, run, run.fit, "fit", sweep) as mirrors:
        _fit(cfg, parts, run, held, watch, mirrors)


def _fit(
    cfg: DictConfig, parts: Parts, run: Run, held: Callable[[], bool], watch: Watch | None, mirrors: list[Logger]
) -> None:
    record, recipe = run.fit, parts.recipe
    train = parts.dataset.load("train")
    checkpoint = record.checkpoints / "last.ckpt"
    make_folder(record.checkpoints)
    if is_first_rank():
        record.write_config(cfg)
    if checkpoint.exists():
        say(f"fit {record.signature}: going on from its checkpoint")
        try:
            torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            raise ValueError(f"{checkpoint} cannot be read ({error}): delete it to train from the start") from error
    batches = functools.partial(
        Batches,
        draw=parts.diffuser.draw,
        size=cfg.training.batch_size,
        steps=recipe.steps,
        seed=recipe.seed,
        flip=cfg.training.flip,
        shape=parts.dataset.shape,
        drop_labels=cfg.training.drop_labels,
        classes=cfg.backbone.classes,
    )
    module = Training(
        parts.denoiser,
        parts.diffuser,
        parts.dataset.encode,
        make(cfg, "optimizer"),
        recipe,
        conditional=bool(cfg.backbone.classes),
        compile=cfg.trainer.compile,
    )
    progress = Progress(
        record,
        recipe.steps,
        cfg.training.batch_size,
        cfg.trainer.log_every,
        show=cfg.trainer.progress and is_first_rank(),
    )
    checkpoints = Checkpoints(checkpoint, cfg.trainer.checkpoint_seconds)
    averaging, policy = ema(cfg.ema.decay), parts.validation
    validating, rungs = [], []
    if policy is not None:
        scorer = Scorer(cfg, parts, train, Draft.of(policy))
        validating = [Validating(policy, scorer, averaging, progress, recipe.steps)]
    if watch is not None:
        scorer = Scorer(cfg, parts, train, Draft.like_result(cfg, parts, watch.samples))
        rungs = [Rungs(watch, scorer, averaging, checkpoint, progress)]
    glimpses = [
        Glimpses(cfg, parts, record, mirror, averaging, progress)
        for mirror in mirrors
        if isinstance(mirror, loggers.WandbLogger) and mirror.settings.samples_every
    ]
    trainer = make_trainer(
        cfg,
        record.folder,
        max_steps=recipe.steps,
        max_epochs=-1,
        logger=mirrors,
        # The order matters: a checkpoint must hold the step's average, its loss and what is known of it.
        callbacks=[averaging, progress, *validating, *rungs, *glimpses, checkpoints],
    )
    try:
        trainer.fit(
            module,
            datamodule=_Data(batches, train.x, train.labels),
            ckpt_path=str(checkpoint) if checkpoint.exists() else None,
            weights_only=True,
        )
    except Exception as error:
        if is_first_rank():
            with contextlib.suppress(OSError, CannotWriteError):
                blocked = {"blocked_by": error.fit} if isinstance(error, BlockedError) else {}
                record.write_status("failed", reason=record.write_error(error), **blocked)
        raise
    if checkpoints.stopped_by is not None:
        if is_first_rank():
            step = trainer.global_step
            record.write_status("waiting", step=step, steps=recipe.steps, reason="interrupted")
            say(f"stopped at step {step} of {recipe.steps}, which is saved: the same command goes on from there")
        raise Interrupted(checkpoints.stopped_by)
    if rungs and rungs[0].stopped:
        if is_first_rank():
            record.write_status("waiting", step=trainer.global_step, steps=recipe.steps, reason="pruned")
        raise Pruned
    if not held():
        raise RuntimeError(f"fit {record.signature} was taken over by another process while this one slept")
    if is_first_rank():
        steps, best = trainer.global_step, validating[0].best if validating else None
        # Not those of the module: Lightning does not touch them where a checkpoint of the last step leaves none to do.
        weights = averaged(averaging, trainer, module)
        if best is not None and best.weights is not None:
            weights = best.weights
        with atomic(record.checkpoints / "ema.safetensors") as temporary:
            save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
        record.write_done(
            {
                "fit": record.signature,
                "steps": steps,
                "seconds": progress.seconds,
                "images_per_second": steps * cfg.training.batch_size / progress.seconds,
                "loss": progress.loss,
                "parameters": sum(p.numel() for p in parts.denoiser.parameters()),
                **(validating[0].summary(steps) if validating else {}),
                **provenance(),
            }
        )
        record.write_status("done", step=steps, steps=steps, loss=progress.loss)
        # Weights are saved and nothing can resume a finished training: the optimizer's state is only a burden.
        checkpoint.unlink(missing_ok=True)
        for mirror in mirrors:
            rows = read_metrics(record.metrics_file)
            loggers.log_fit(mirror, record.result() or {}, rows, record.checkpoints / "ema.safetensors")
    trainer.strategy.barrier()


def evaluate(
    cfg: DictConfig,
    parts: Parts,
    run: Run,
    overrides: list[str],
    sweep: str | None = None,
    held: Callable[[], bool] = lambda: True,
) -> dict[str, Any] | None:
    """Draw the cell's samples with the averaged weights, score them, write picture and result.

    Raises:
        ValueError: if weights or data cannot be read.
    """
    with _mirrored(cfg, run, run.cell, "cell", sweep) as mirrors:
        result = _evaluate(cfg, parts, run, overrides, sweep, held)
        if result is not None:
            for mirror in mirrors:
                loggers.log_result(mirror, result, run.cell.samples_file)
    return result


def _evaluate(
    cfg: DictConfig, parts: Parts, run: Run, overrides: list[str], sweep: str | None, held: Callable[[], bool]
) -> dict[str, Any] | None:
    cell, fitted = run.cell, run.fit.result()
    assert fitted is not None
    load_weights(parts.denoiser, run.fit)
    if is_first_rank():
        make_folder(cell.folder)
        cell.write_config(cfg)
        cell.write_status("running", stage="sample")
    asked, evaluation = cfg.evaluation, parts.evaluation
    look = {"extractor": evaluation.extractor, "outputs": evaluation.outputs, "shown": GRID}
    sampling = parts.sampling(parts.denoiser, asked.seed, **look)
    trainer = functools.partial(make_trainer, cfg, cell.folder, logger=False)
    show = cfg.trainer.progress and is_first_rank()
    drawn = draw(sampling, trainer, asked.samples, asked.batch_size, show=show)
    if drawn is None or drawn.features is None or not is_first_rank():
        return None

    started = time.monotonic()
    cell.write_status("running", stage="evaluate")
    there = dataclasses.replace(evaluation, extractor=evaluation.extractor.to(drawn.device))
    measured = measure(cfg, parts.dataset, there, drawn.features, drawn.broken, show=show)
    of_model = measure_model(
        parts.model_metrics,
        parts.denoiser.to(drawn.device),
        parts.schedule,
        parts.dataset,
        conditional=bool(cfg.backbone.classes),
        batch_size=asked.batch_size,
        device=drawn.device,
    )
    evaluate_seconds = drawn.extract_seconds + time.monotonic() - started
    grid(drawn.samples, cell.samples_file)
    result = {
        "cell": cell.signature,
        "fit": run.fit.signature,
        "overrides": " ".join(overrides),
        **{group: run.choices.get(group) for group in CHOICES},
        "guidance": run.choices.get("guidance"),
        **measured,
        **of_model,
        "nfe": drawn.nfe,
        "nfe_asked": parts.sampler.nfe,
        "steps": parts.sampler.steps,
        "sample_seed": asked.seed,
        "seed": cfg.seed,
        "parameters": fitted["parameters"],
        "fit_steps": fitted["steps"],
        "fit_kept_step": fitted["best_step"] if fitted.get("kept") == "best" else fitted["steps"],
        "fit_seconds": fitted["seconds"],
        "sample_seconds": drawn.seconds,
        "evaluate_seconds": evaluate_seconds,
        "extract_seconds": drawn.extract_seconds,
        "grid": cell.samples_file.name,
        "sweep": sweep,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **provenance(),
    }
    if not held():
        raise RuntimeError(f"cell {cell.signature} was taken over by another process while this one slept")
    cell.write_result(result)
    # The result stands; that its status could not be told does not unmake it.
    with contextlib.suppress(CannotWriteError):
        cell.write_status("done")
    return cell.result()


@contextlib.contextmanager
def _alone(record: Record, verb: str) -> Iterator[Callable[[], bool]]:
    """Hold the record's lease, and tell whether it still is; helping ranks must not ask for what their leader holds."""
    if not is_first_rank():
        yield lambda: True
        return

    def waiting(holder: Any) -> None:
        kind = type(record).__name__.lower()
        say(f"{kind} {record.signature} is being {verb} by {holder}; waiting for it (Ctrl-C leaves it alone)")

    make_folder(record.folder)
    with Lease(record.folder).acquire(on_wait=waiting) as lease:
        yield lease.still_held


@contextlib.contextmanager
def _mirrored(
    cfg: DictConfig, run: Run, record: Fit | Cell, kind: Literal["fit", "cell"], sweep: str | None
) -> Iterator[list[Logger]]:
    """The loggers of a fit or cell, ended with it; only the first rank has any."""
    mirrors = []
    if is_first_rank():
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        info = RunInfo.of(kind, record.folder, config, run.choices, sweep)
        mirrors = [make(cfg, f"logger.{name}")(info) for name, entry in (cfg.logger or {}).items() if entry]
    failed = preempted = False
    try:
        yield mirrors
    except BaseException as error:
        # One that is interrupted goes on later, and one that is pruned has not failed.
        failed, preempted = not isinstance(error, Pruned), isinstance(error, Interrupted)
        raise
    finally:
        for mirror in mirrors:
            command = loggers.close(mirror, failed=failed, preempted=preempted)
            if command:
                say(f"W&B is offline; to send this run: {command}")
