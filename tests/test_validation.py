"""Evaluations while a training goes on: they change no bit, and what they find survives every kill."""

from __future__ import annotations

import copy
import functools
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from diffsweep.runs import stages
from diffsweep.runs.build import Components
from diffsweep.sweep.store.record import Fit, Run, read_metrics
from diffsweep.sweep.store.signature import fit_signature, resolved
from diffsweep.trainer import WholeFiles
from diffsweep.training.fit import Fitting
from diffsweep.training.progress import Progress
from diffsweep.training.scoring_callbacks import IntermediateEvaluation, PruningPolicy, WeightsEvaluator
from diffsweep.training.validation import Best, Validation
from tiny import TINY

CONF = Path(__file__).parent.parent / "conf"
STEPS = 40
NAME = "fd_points"
# At a constant, too high rate the distance goes up and down, and a training's beginning is that of a longer one.
ROUGH = (
    f"training.steps={STEPS}",
    "training.warmup=4",
    "training.decay=constant",
    "optimizer.lr=0.02",
    "seed=1",
    "ema.decay=0.5",
    "metric=[frechet]",
    "trainer.progress=false",
)
EVERY = ("validation.every=10", "validation.samples=64")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def config(folder: Path, *overrides: str) -> tuple[DictConfig, Run]:
    cfg = composed(*TINY, *ROUGH, f"paths.runs={folder}", *overrides)
    return cfg, Run.of(cfg)


def trained(folder: Path, *overrides: str) -> Run:
    cfg, run = config(folder, *overrides)
    stages.train(cfg, run)
    return run


def score(folder: Path, *overrides: str) -> dict[str, Any]:
    """The result of a trained run."""
    cfg, run = config(folder, *overrides)
    result = stages.score(cfg, run, [])
    assert result is not None
    return result.flat()


def weights(run: Run) -> bytes:
    return (run.fit.checkpoints / "ema.safetensors").read_bytes()


def done(run: Run) -> dict[str, Any]:
    """done.json without what clock and place decide."""
    found = run.fit.result()
    assert found is not None
    keys = ("steps", "loss", "validation_metric", "best_value", "best_step", "kept", "stopped_early")
    return {key: found[key] for key in keys if key in found}


def lines(run: Run) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    return [
        {key: value for key, value in line.items() if key != "images_per_second"}
        for line in read_metrics(run.fit.metrics_file)
    ]


def curve(run: Run) -> dict[int, float]:
    """Steps done -> value."""
    return {line["step"] + 1: line[NAME] for line in lines(run) if NAME in line}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("watched"), "validation=curve", *EVERY)


def test_a_curve_changes_no_bit_and_adds_lines_of_its_own(plain: Run, watched: Run) -> None:
    assert weights(watched) == weights(plain)
    assert [line for line in lines(watched) if NAME not in line] == lines(plain)
    assert list(curve(watched)) == [10, 20, 30, 40]
    assert all(set(line) == {"step", NAME} for line in lines(watched) if NAME in line)
    assert set(done(plain)) == {"steps", "loss"}
    best = min(curve(watched), key=curve(watched).__getitem__)
    assert done(watched) == done(plain) | {
        "validation_metric": NAME,
        "best_value": curve(watched)[best],
        "best_step": best,
        "kept": "last",
        "stopped_early": False,
    }


def test_the_curve_ends_where_an_evaluation_of_the_same_samples_does(watched: Run) -> None:
    result = score(watched.fit.folder.parents[1], "validation=curve", "sampler=dpmpp_2m", *EVERY)
    assert curve(watched)[STEPS] == pytest.approx(result[NAME], rel=1e-5)


def test_the_best_weights_are_those_that_a_training_of_so_many_steps_ends_with(tmp_path: Path, watched: Run) -> None:
    best = trained(tmp_path, "validation=best", *EVERY)
    assert curve(best) == curve(watched)
    assert done(best) == done(watched) | {"kept": "best"}
    short = trained(tmp_path, f"training.steps={done(best)['best_step']}")
    assert weights(best) == weights(short)
    result = score(tmp_path, "validation=best", "sampler=dpmpp_2m", *EVERY)
    assert result[NAME] == pytest.approx(done(best)["best_value"], rel=1e-5)


def test_the_last_step_is_evaluated_whatever_the_others(tmp_path: Path) -> None:
    # An evaluation is no rung: a search that prunes goes on beside it.
    cfg, run = config(tmp_path, "training.steps=7", "validation=best", "validation.every=5")
    rungs: dict[int, float] = {}
    watch = PruningPolicy((5,), 64, lambda step, name, value: bool(rungs.update({step: value})))
    stages.complete(cfg, run, [], None, watch)
    assert list(curve(run)) == [5, 7]
    assert list(rungs) == [5]


# Early stopping


def scripted(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Evaluations find these, one after the other."""
    found = iter(values)
    monkeypatch.setattr(WeightsEvaluator, "__call__", lambda self, weights, trainer: next(found))


def test_a_training_ends_when_patience_does_and_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, math.nan, math.nan, 3.0, 4.0, math.nan)
    overrides = ("validation=best", *EVERY, "validation.every=5", "validation.patience=2")
    run = trained(tmp_path, *overrides)
    assert list(curve(run).values()) == [None, None, 3.0, 4.0, None]
    wanted = {"steps": 25, "best_value": 3.0, "best_step": 15, "kept": "best", "stopped_early": True}
    assert wanted.items() <= done(run).items()
    status = run.fit.status()
    assert status is not None
    assert (status["state"], status["step"], status["steps"]) == ("done", 25, 25)
    assert not list(run.fit.checkpoints.glob("*.ckpt"))
    before = weights(run)
    result = score(tmp_path, *overrides)
    assert (result["fit_steps"], result["fit_kept_step"]) == (25, 15)
    # Nothing is scripted any more: another evaluation would fail.
    assert trained(tmp_path, *overrides).fit == run.fit
    assert weights(run) == before


def test_with_nothing_but_broken_samples_the_last_weights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Run
) -> None:
    scripted(monkeypatch, *[math.nan, math.inf] * 2)
    run = trained(tmp_path, "validation=best", *EVERY, "validation.patience=1", "logger=csv")
    assert list(curve(run).values()) == [None] * 4
    wanted = {"steps": STEPS, "best_value": None, "best_step": None, "kept": "last", "stopped_early": False}
    assert wanted.items() <= done(run).items()
    assert weights(run) == weights(plain)
    table = (run.fit.folder / "csv/metrics.csv").read_text().splitlines()
    assert NAME not in table[0]
    assert len(table) - 1 == len(lines(plain))


def test_every_logger_has_the_curve(tmp_path: Path) -> None:
    run = trained(tmp_path, "validation=curve", *EVERY, "logger=csv")
    first, *rows = [row.split(",") for row in (run.fit.folder / "csv/metrics.csv").read_text().splitlines()]
    assert len(rows) == len(lines(run))
    found = {int(row[first.index("step")]): row[first.index(NAME)] for row in rows if row[first.index(NAME)]}
    assert {step + 1: float(value) for step, value in found.items()} == pytest.approx(curve(run))


def test_the_best_is_the_first_of_equals_and_patience_begins_with_it() -> None:
    best = Best(patience=2)
    seen = []
    for step, value in enumerate([math.nan, math.inf, math.nan, 5.0, 5.0, 4.0, math.nan, 4.0]):
        best.see(value, step, {"w": torch.full((1,), value)})
        seen.append((best.step, best.waited, best.over))
    early = [(None, 0, False)] * 3
    assert seen == [*early, (3, 0, False), (3, 1, False), (5, 0, False), (5, 1, False), (5, 2, True)]
    assert best.weights == {"w": torch.tensor([4.0])}
    again = Best(patience=2)
    again.load_state_dict(best.state_dict())
    assert again == best
    never = Best(patience=None)
    for value in range(100):
        never.see(value, value, None)
    assert (never.over, never.weights) == (False, None)


def test_the_best_weights_are_a_copy() -> None:
    best, moving = Best(None), {"w": torch.zeros(2)}
    best.see(1.0, 1, moving)
    moving["w"] += 1
    assert best.weights is not None
    assert best.weights["w"].tolist() == [0, 0]


def test_broken_weights_are_scored_nan(tmp_path: Path) -> None:
    cfg, _ = config(tmp_path, "validation=curve", *EVERY)
    fitting = Components.of(cfg).fitting
    assert isinstance(fitting, Fitting)
    model = fitting.scoring.model
    assert fitting.validation is not None
    evaluation = IntermediateEvaluation.of(fitting.validation, tmp_path, fitting.scoring.trainer)
    scorer = WeightsEvaluator(model, model.dataset.load("train"), evaluation)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    given = {name: value.clone() for name, value in model.denoiser.backbone.state_dict().items()}
    before = torch.get_rng_state()
    assert math.isfinite(scorer(given, trainer))
    for broken in (math.nan, math.inf):
        assert math.isnan(scorer({name: value * broken for name, value in given.items()}, trainer))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.requires_grad for parameter in model.denoiser.parameters())


# Kills


def killed(folder: Path, overrides: tuple[str, ...], owner: type, name: str, nth: int, when: str) -> None:
    """Train in a fork of this process that is killed before or after the n-th call of a method."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            stream = os.open(os.devnull, os.O_WRONLY)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            setattr(owner, name, dying(getattr(owner, name), nth, when))
            trained(folder, *overrides)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def dying(method: Callable[..., Any], nth: int, when: str) -> Callable[..., Any]:
    calls = 0

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if calls == nth and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "patience"), [("1e-9", "null"), ("1e-9", "1"), ("3600", "null")])
def test_killed_at_any_point_and_resumed_it_ends_the_same(tmp_path: Path, seconds: str, patience: str) -> None:
    """With a checkpoint at every step, and with none."""
    given = ("validation=best", *EVERY, f"validation.patience={patience}")
    whole = trained(tmp_path / "undisturbed", *given)
    overrides = (*given, f"trainer.checkpoint_seconds={seconds}")
    # Scored and not told; told and not saved.
    killed(tmp_path, overrides, Progress, "note", 1, "before")
    killed(tmp_path, overrides, Progress, "note", 1, "after")
    if seconds == "1e-9":
        # The evaluation's own step is saved; and one that is not evaluated.
        killed(tmp_path, overrides, WholeFiles, "save_checkpoint", 1, "after")
        killed(tmp_path, overrides, WholeFiles, "save_checkpoint", 5, "after")
    # Over, and nobody was told.
    killed(tmp_path, overrides, Fit, "write_done", 1, "before")
    run = trained(tmp_path, *overrides)
    assert weights(run) == weights(whole)
    assert lines(run) == lines(whole)
    assert done(run) == done(whole)
    assert done(run)["stopped_early"] == (patience == "1")
    assert done(run)["best_step"] < done(run)["steps"], "these settings no longer show anything"


@pytest.mark.slow
def test_a_training_that_was_killed_after_its_last_step_has_its_averaged_weights(tmp_path: Path, plain: Run) -> None:
    killed(tmp_path, ("trainer.checkpoint_seconds=1e-9",), Fit, "write_done", 1, "before")
    run = trained(tmp_path, "trainer.checkpoint_seconds=1e-9")
    assert weights(run) == weights(plain)
    assert done(run) == done(plain)


# What is signed


def test_what_is_off_has_no_part_in_the_name_of_a_training() -> None:
    cfg = composed()
    without = {key: value for key, value in resolved(cfg).items() if key != "validation"}
    assert fit_signature(cfg) == fit_signature(without)
    for other in ("extractor=inception", "sampler=ddim", "evaluation.samples=7"):
        assert fit_signature(composed(other)) == fit_signature(cfg)


def test_whatever_can_change_the_best_weights_makes_another_training() -> None:
    base = composed("validation=best")
    for key in ("every", "samples", "batch_size", "seed", "patience", "sampler.nfe"):
        other = copy.deepcopy(base)
        OmegaConf.update(other, f"validation.{key}", 7)
        assert fit_signature(other) != fit_signature(base), key
    for option in ("sampler@validation.sampler=ddim", "extractor=inception", "validation=curve"):
        assert fit_signature(composed("validation=best", option)) != fit_signature(base), option
    for option in ("sampler=ddim", "evaluation.samples=7"):
        assert fit_signature(composed("validation=best", option)) == fit_signature(base), option


def test_where_the_extractors_weights_lie_is_no_part_of_the_name() -> None:
    inception = ("validation=best", "extractor=inception")
    assert fit_signature(composed(*inception, "evaluation.extractor.weights=/elsewhere")) == fit_signature(
        composed(*inception)
    )


def test_the_sampler_of_an_evaluation_is_chosen_in_its_place() -> None:
    cfg = composed("validation=best", "sampler@validation.sampler=ddim", "validation.sampler.nfe=10", "sampler=heun")
    fitting = Components.of(cfg).fitting
    assert isinstance(fitting, Fitting)
    validation = fitting.validation
    assert isinstance(validation, Validation)
    assert (validation.sampler.nfe, type(validation.sampler.solver).__name__) == (10, "Euler")
    assert validation.extractor.space == "digits"
    default = Components.of(composed()).fitting
    assert isinstance(default, Fitting)
    assert default.validation is None


# Mistakes


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("validation.every=0", "validation.every=0 must be a whole number, 1 or more (validation=none turns it off)"),
        ("validation.samples=1", "validation.samples=1 must be a whole number, 2 or more"),
        ("validation.batch_size=0", "validation.batch_size=0 must be a whole number, 1 or more"),
        ("validation.seed=x", "validation.seed=x must be a whole number"),
        ("validation.patience=0", "validation.patience=0 must be a whole number, 1 or more, or null never to stop"),
        ("validation.patience=true", "validation.patience=true must be a whole number"),
        ("validation.keep=bestest", "validation.keep=bestest is unknown: choose one of last, best"),
        ("extractor=fashion_mnist", "extractor fashion_mnist does not take dataset=digits"),
        ("sampler@validation.sampler=heun", "validation.sampler: "),
    ],
)
def test_bad_values_are_refused_in_one_line(override: str, words: str) -> None:
    pure = ["schedule=rectified", "sampler/spacing@validation.sampler.spacing=time"] if "heun" in override else []
    cfg = composed("validation=best", override, *pure)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        Components.of(cfg)
    assert words in str(caught.value)
