"""Which average and which step are choices of one training: what is kept, and what any length is made of."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from safetensors.torch import load_file
from scipy.integrate import quad

from diffsweep.results import load_fit
from diffsweep.runs import stages
from diffsweep.scoring.power_average import PowerAverage, coefficients, exponent, newest_share
from diffsweep.scoring.weights import step_file
from diffsweep.sweep.store.record import Run
from diffsweep.sweep.store.signature import cell_signature, fit_signature, resolved
from diffsweep.training.power_average import KeptAverages
from tiny import TINY

CONF = Path(__file__).parent.parent / "conf"
NAME = "enter.weight"
STEPS = 60
KEPT = [
    *TINY,
    f"training.steps={STEPS}",
    "training.averages=[0.05,0.1]",
    "training.snapshots=4",
    "training.keep=[20,40]",
    "trainer.progress=false",
]


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_gives_the_relative_standard_deviation(std: float) -> None:
    g = exponent(std)
    mean = quad(lambda i: i * (g + 1) * i**g, 0, 1)[0]
    square = quad(lambda i: i * i * (g + 1) * i**g, 0, 1)[0]
    assert math.sqrt(square - mean**2) == pytest.approx(std, rel=1e-6)


def test_the_published_exponents() -> None:
    """Of section 3.1 of arXiv 2312.02696: 0.05 and 0.10 are 16.97 and 6.94."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("std", [0.0, -0.1, 0.29, math.nan])
def test_no_other_length_exists(std: float) -> None:
    with pytest.raises(ValueError, match=r"^std="):
        exponent(std)


def tracked(weights: np.ndarray, std: float) -> np.ndarray:
    """The average after each step, by the recursion."""
    averages, average = [], np.zeros_like(weights[0])
    for step, here in enumerate(weights, start=1):
        average = average + newest_share(std, step) * (here - average)
        averages.append(average)
    return np.array(averages)


def walk(steps: int) -> np.ndarray:
    """Weights that settle, as in a training: a random walk whose steps become small."""
    draw = np.random.default_rng(0)
    return np.cumsum(draw.standard_normal((steps, 50)) / np.arange(1, steps + 1)[:, None] ** 0.7, axis=0)


@pytest.mark.parametrize(("snapshots", "tolerance"), [(8, 0.03), (16, 0.01), (64, 0.002)])
@pytest.mark.parametrize("std", [0.03, 0.07, 0.15, 0.2])
def test_any_length_is_made_of_two_that_were_kept(std: float, snapshots: int, tolerance: float) -> None:
    """Against the average that is tracked, in units of what the average changes of the last weights."""
    steps = 2000
    weights = walk(steps)
    kept = [PowerAverage(one, round(steps * i / snapshots)) for one in (0.05, 0.1) for i in range(1, snapshots + 1)]
    runs = {one: tracked(weights, one) for one in (0.05, 0.1, std)}
    counts, _ = coefficients(kept, PowerAverage(std, steps))
    made = sum(count * runs[one.std][one.step - 1] for count, one in zip(counts, kept, strict=True))
    wanted = runs[std][-1]
    assert sum(counts) == pytest.approx(1, abs=1e-9)
    assert np.linalg.norm(made - wanted) < tolerance * np.linalg.norm(weights[-1] - wanted) * (4 if std < 0.05 else 1)


def test_what_was_kept_is_taken_as_it_is_and_what_cannot_be_made_is_told() -> None:
    kept = [PowerAverage(std, step) for std in (0.05, 0.1) for step in (50, 100)]
    assert coefficients(kept, PowerAverage(0.1, 50)) == ([0, 0, 1, 0], 0)
    assert coefficients(kept, PowerAverage(0.08, 100))[1] < 0.1
    assert coefficients(kept, PowerAverage(0.01, 100))[1] > 0.4
    assert [PowerAverage.of_file(one.file) for one in kept] == kept
    assert PowerAverage.of_file("ema.safetensors") is None
    assert PowerAverage.of_file("power-x-5.safetensors") is None


def digests(checkpoints: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoints.glob("*.safetensors")}


def composed(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*KEPT, f"paths.runs={folder}", *overrides])


def trained(folder: Path, *overrides: str) -> Run:
    cfg = composed(folder, *overrides)
    run = Run.of(cfg)
    stages.train(cfg, run)
    return run


def scored(folder: Path, *overrides: str) -> dict[str, Any]:
    """The flat result of a cell whose training is done already."""
    cfg = composed(folder, *overrides)
    result = stages.score(cfg, Run.of(cfg), list(overrides))
    assert result is not None
    return result.flat()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    trained(folder)
    return folder


def checkpoints(folder: Path) -> Path:
    (found,) = folder.glob("fits/*/checkpoints")
    return found


def test_a_training_keeps_averages_at_even_and_at_named_steps(runs: Path) -> None:
    powers = [PowerAverage(std, step).file for std in (0.05, 0.1) for step in (15, 20, 30, 40, 45, 60)]
    assert set(digests(checkpoints(runs))) == {"ema.safetensors", step_file(20), step_file(40), *powers}


def test_what_is_kept_is_the_average_of_the_weights_of_all_steps(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
            seen.append(pl_module.state_dict()[f"denoiser.backbone.{NAME}"].double().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptAverages, "setup", lambda self, trainer, *_, **__: trainer.callbacks.append(Watch()))
        trained(tmp_path, "training.keep=[]", "training.snapshots=2")
    weights = torch.stack(seen).flatten(1).numpy()
    assert len(weights) == STEPS
    for std in (0.05, 0.1):
        for step in (30, 60):
            found = load_file(checkpoints(tmp_path) / PowerAverage(std, step).file)[NAME].flatten()
            np.testing.assert_allclose(found, tracked(weights, std)[step - 1], rtol=1e-5, atol=1e-7)


def test_lengths_and_steps_are_cells_of_one_training(runs: Path) -> None:
    chosen = [(), ("weights.ema=0.05",), ("weights.ema=0.07",), ("weights.step=20",)]
    chosen += [("weights.ema=0.1", "weights.step=40"), ("weights.step=60",), ("weights.step=last",)]
    results = [scored(runs, *words) for words in chosen]
    assert len({result["fit"] for result in results}) == 1
    assert [result["fit_kept_step"] for result in results] == [60, 60, 60, 20, 40, 60, 60]
    values = [result[result["metric"]] for result in results]
    assert len(set(values[:5])) == 5
    assert values[0] == values[5] == values[6]
    models = [load_fit(result["cell"], runs).backbone.state_dict() for result in results]
    for model, name in ((models[1], "power-0.05-60"), (models[3], "average-20"), (models[4], "power-0.1-40")):
        kept = load_file(checkpoints(runs) / f"{name}.safetensors")
        assert all(torch.equal(model[key], value) for key, value in kept.items())
    near, far = (load_file(checkpoints(runs) / f"power-{std}-60.safetensors")[NAME] for std in ("0.05", "0.1"))
    # Between the two, and not the mean of them.
    between = models[2][NAME]
    assert (between - near).norm() < (far - near).norm()
    assert (between - far).norm() < (far - near).norm()


def test_an_average_that_is_made_later_is_close_to_one_that_was_kept(tmp_path: Path) -> None:
    """The same training, once with the length that the other makes of its own two."""
    words = ("training.steps=200", "training.keep=[]", "optimizer.lr=0.003", "training.decay=constant")
    trained(tmp_path / "two", *words, "training.snapshots=16")
    trained(tmp_path / "one", *words, "training.averages=[0.07]", "training.snapshots=1")
    made = scored(tmp_path / "two", *words, "training.snapshots=16", "weights.ema=0.07")
    model = load_fit(made["cell"], tmp_path / "two").backbone.state_dict()
    wanted = load_file(checkpoints(tmp_path / "one") / "power-0.07-200.safetensors")
    last = load_file(checkpoints(tmp_path / "two") / "power-0.05-200.safetensors")
    error = sum(float((model[name] - value).square().sum()) for name, value in wanted.items()) ** 0.5
    apart = sum(float((last[name] - value).square().sum()) for name, value in wanted.items()) ** 0.5
    assert error < 0.02 * apart


def killed_after_writing(folder: Path, nth: int, *overrides: str) -> None:
    """Train in a fork of this process that is killed when it has written averages for the n-th time."""
    pid = os.fork()
    if pid == 0:
        written, write = [0], KeptAverages.write

        def dying(self: KeptAverages, *arguments: Any, powers: bool, own: bool) -> None:
            write(self, *arguments, powers=powers, own=own)
            written[0] += powers
            if written[0] == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        KeptAverages.write = dying  # type: ignore[method-assign]
        try:
            trained(folder, *overrides)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_killed_and_resumed_it_keeps_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    words = "trainer.checkpoint_seconds=1e-9"
    for nth in (1, 3):
        killed_after_writing(tmp_path, nth, words)
    killed_after_writing(tmp_path, 2, "trainer.checkpoint_seconds=3600")
    trained(tmp_path, words)
    assert digests(checkpoints(tmp_path)) == digests(checkpoints(runs))


def test_the_best_and_the_last_step_of_a_validated_training(tmp_path: Path) -> None:
    words = (
        "validation=best",
        "validation.every=20",
        "validation.samples=32",
        "optimizer.lr=0.05",
        "training.decay=constant",
    )
    run = trained(tmp_path, *words)
    best = (run.fit.result() or {})["best_step"]
    results = {
        choice: scored(tmp_path, *words, *choice.split())
        for choice in ("", "weights.step=best", "weights.step=last", "weights.step=best weights.ema=0.05")
    }
    assert [result["fit_kept_step"] for result in results.values()] == [best, best, STEPS, best]
    values = [result[result["metric"]] for result in results.values()]
    assert values[0] == values[1] != values[3]
    assert (values[2] == values[0]) == (best == STEPS)


DEFAULT = [word for word in KEPT if not word.startswith("training.")] + ["training.steps=60"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["weights.ema=0.1"],
            "weights.ema=0.1 is made of averages that a training keeps: set training.averages=",
        ),
        (["weights.ema=0.4", "training.averages=[0.1]"], "weights.ema=0.4 must be below 0.289"),
        (["weights.ema=-1"], "weights.ema=-1 must be above 0"),
        (["weights.ema=long"], "weights.ema=long must be a number or null"),
        (
            ["weights.step=7"],
            "weights.step=7 is no step that the training keeps: set training.keep=[7], or",
        ),
        (["weights.step=0"], "weights.step=0 must be a whole number, 1 or more"),
        (["weights.step=bets"], "weights.step=bets must be a whole number, last, best or null"),
        (["weights.step=best"], "weights.step=best needs a training that keeps its best step: choose validation=best"),
        (["training.keep=[61]"], "training.keep[0]=61 must be a whole number from 1 to 60"),
        (["training.keep=20"], "training.keep=20 must be a list"),
        (["training.averages=[0.5]"], "training.averages[0]=0.5 must be below 0.289"),
        (["training.averages=0.1"], "training.averages=0.1 must be a list or null"),
        (["training.snapshots=0"], "training.snapshots=0 must be a whole number, 1 or more"),
    ],
)
def test_what_no_training_keeps_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        stages.build(plain(tmp_path, *words))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def plain(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*DEFAULT, f"paths.runs={folder}", *overrides])


def test_a_training_that_kept_nothing_says_so(tmp_path: Path, runs: Path) -> None:
    fit = next(runs.glob("fits/*"))
    copy = tmp_path / "fits" / fit.name
    shutil.copytree(fit, copy, ignore=shutil.ignore_patterns("cells"))
    for path in (copy / "checkpoints").glob("power-*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"kept no averages for weights\.ema=0\.05: set training\.averages="):
        scored(tmp_path, "weights.ema=0.05")


def test_at_their_defaults_they_are_not_signed() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = resolved(compose("config", TINY))
        kept = resolved(compose("config", [*TINY, "training.keep=[5]"]))
        chosen = resolved(compose("config", [*TINY, "weights.step=last"]))
    former = {key: value for key, value in cfg.items() if key != "weights"}
    later = ("accumulate", "averages", "snapshots", "keep")
    former["training"] = {key: value for key, value in cfg["training"].items() if key not in later}
    assert fit_signature(former) == fit_signature(cfg) == fit_signature(chosen) != fit_signature(kept)
    assert cell_signature(former) == cell_signature(cfg) != cell_signature(chosen)
