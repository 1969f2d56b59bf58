"""How weights follow the gradient: courses of the learning rate, which weights decay, and Muon on every network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import forked_runs
from diffsweep.data.examples import Examples
from diffsweep.runs import stages
from diffsweep.runs.build import Components, training_settings
from diffsweep.sweep.store.record import Run, read_metrics
from diffsweep.training.muon import Muon
from diffsweep.training.weight_decay import parameters_to_train
from settings import trainer_settings
from test_device import composed, training
from tiny import TINY

ROOT = Path(__file__).parent.parent
COURSES = sorted(path.stem for path in (ROOT / "conf" / "training" / "decay").glob("*.yaml"))
STEPS = 40


def course(*words: str) -> list[float]:
    """The share of the optimizer's rate at each step of a run."""
    settings = training_settings(composed(*TINY, f"training.steps={STEPS}", *words))
    return [settings.learning_rate_factor(step) for step in range(STEPS)]


def test_a_course_named_by_its_option_is_the_run_that_it_was() -> None:
    for name in ("constant", "linear", "cosine"):
        runs = [Run.of(composed(*TINY, word)) for word in (f"training/decay={name}", f"training.decay={name}")]
        assert runs[0].fit.signature == runs[1].fit.signature
    assert {"one_cycle", "inverse_sqrt", "restarts", "steps", "exponential"} <= set(COURSES)


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """What a scheduler makes of the rate 1, driven as its documentation says."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_courses_are_those_of_torch_after_the_warm_up() -> None:
    schedulers = torch.optim.lr_scheduler
    warm = [(step + 1) / 10 for step in range(10)]
    found = course("training/decay=restarts", "training.decay.T_0=8")
    expected = torch_rates(lambda one: schedulers.CosineAnnealingWarmRestarts(one, 8), STEPS - 10)
    assert found == pytest.approx([*warm, *expected])
    found = course("training/decay=one_cycle")
    whole = torch_rates(lambda one: schedulers.OneCycleLR(one, 1.0, STEPS, cycle_momentum=False), STEPS)
    assert course("training/decay=one_cycle", "training.warmup=0") == pytest.approx(whole)
    assert max(found) <= 1
    found = course("training/decay=inverse_sqrt", "training.decay.lr_lambda.constant=4", "training.warmup=0")
    assert found[:5] == [1] * 5
    assert found[16] == pytest.approx(0.5)


@pytest.mark.parametrize("name", COURSES)
def test_a_training_follows_its_course_and_goes_on_with_it(name: str, tmp_path: Path) -> None:
    """In one go, and killed after a checkpoint in the middle: the same rates, the same weights."""
    words = [*TINY, f"training.steps={STEPS}", f"training/decay={name}", "trainer.progress=false", "optimizer=muon"]
    shares = course(*words[len(TINY) :])
    weights, rates = [], []
    for number, seconds in enumerate(("3600", "1e-9")):
        cfg = composed(*words, f"paths.runs={tmp_path / str(number)}", f"trainer.checkpoint_seconds={seconds}")
        run = Run.of(cfg)
        if number:
            killed_in_the_middle(cfg, run)
        stages.train(cfg, run)
        weights.append(load_file(run.fit.checkpoints / "ema.safetensors"))
        rates.append([(line["step"], line["lr"]) for line in read_metrics(run.fit.metrics_file)])
    assert rates[0] == rates[1]
    assert [rate for _, rate in rates[0][:-1]] == pytest.approx([0.02 * shares[step + 1] for step, _ in rates[0][:-1]])
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key])


def killed_in_the_middle(cfg: Any, run: Run) -> None:
    from diffsweep.training.checkpoint import Checkpoints

    class KilledError(Exception):
        pass

    written, save = 0, Checkpoints.on_train_batch_end

    def dying(self: Checkpoints, *arguments: Any) -> None:
        nonlocal written
        save(self, *arguments)
        written += 1
        if written == STEPS // 2:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", dying)
        with pytest.raises(KilledError):
            stages.train(cfg, run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training/decay=one_cycle", "training.decay.pct_start=2"], "training.decay: OneCycleLR(max_lr=1.0, "),
        (
            ["training/decay=exponential", "training.decay.gamma=-1"],
            "gives the rate -1 at step 1",
        ),
        (["training/decay=restarts", "training.decay.T_0=0"], "training.decay: CosineAnnealingWarmRestarts(T_0=0, "),
        (["training/decay=one_cycle", "training.decay.max_lr=-1"], "max_lr=-1"),
        (["training/decay=one_cycle", "training.decay.div_factor=0"], "div_factor=0"),
        (["training/decay=steps", "training.decay.gamma=x"], "training.decay.gamma=x must be a finite number"),
        (["training/decay=steps", "training.decay.gamma=true"], "training.decay.gamma=true must be a finite number"),
        (["training/decay=inverse_sqrt", "training.decay.lr_lambda.constant=0"], "lr_lambda.constant=0 must be a"),
        (["training.decay=fast"], "training.decay=fast is unknown: must be constant, linear or cosine"),
        (["training/decay=one_cycle", "training.decay.total_steps=9"], "Tried to step 10 times"),
        (["training.weight_decay=some"], "training.weight_decay=some must be all or matrices"),
        (["training.weight_decay=matrices", "optimizer=muon"], "decays weights, and Muon has no weight_decay: choose"),
        (["training.weight_decay=matrices", "optimizer=adam"], "decays weights, and Adam has weight_decay=0: choose"),
    ],
)
def test_what_gives_no_rate_or_no_decay_is_refused_before_a_training(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r"^training\.") as refusal:
        Components.of(composed(*TINY, "training.steps=20", *words))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_courses_are_swept_as_any_option(tmp_path: Path) -> None:
    words = ["-m", *TINY, "training.steps=12", "training/decay=cosine,one_cycle,inverse_sqrt", "trainer.progress=false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked_runs.run([str(ROOT / "train.py"), *words], tmp_path, environment, 300)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/fits/*/cells/*/result.json")]
    assert len({result["fit"] for result in results}) == 3
    for name in ("cosine", "one_cycle", "inverse_sqrt"):
        assert name in done.stdout


NETWORKS = {
    "unet": ["dataset=digits", "backbone.width=8", "backbone.groups=4", "backbone.heads=2"],
    "dit": ["dataset=digits", "backbone=dit_tiny", "backbone.depth=2"],
    "edm2": ["dataset=digits", "backbone=edm2_tiny", "backbone.width=8", "backbone.head=8"],
    "mlp": [*TINY],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_muon_lowers_the_loss_of_every_network_and_moves_all_of_its_matrices(name: str) -> None:
    cfg = composed(*NETWORKS[name], "condition=label", "optimizer=muon")
    cfg.training.steps, cfg.training.batch_size = 30, 64 if name == "mlp" else 16
    if name == "edm2":
        # Whose weights are of unit root mean square.
        cfg.optimizer.lr = 0.2
    source = Components.of(cfg).scoring.model.dataset.load("train")
    module, batches = training(cfg, trainer_settings())
    optimizer = module.optimizer(module.parameters())
    assert isinstance(optimizer, Muon)
    ndims = [(group["matrices"], {weight.ndim for weight in group["params"]}) for group in optimizer.param_groups]
    assert all(matrices == (min(found) >= 2) == (max(found) >= 2) for matrices, found in ndims)
    before = {key: weight.detach().clone() for key, weight in module.named_parameters()}
    losses = []
    for number, batch in enumerate(batches(Examples(source.take(torch.arange(200)).x, source.labels[:200]))):
        optimizer.zero_grad()
        loss = module.training_step(batch, number)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    for key, weight in module.named_parameters():
        assert weight.isfinite().all(), key
        assert not torch.equal(before[key], weight), key


@pytest.mark.parametrize("name", NETWORKS)
def test_only_matrices_decay_where_that_is_asked(name: str) -> None:
    cfg = composed(*NETWORKS[name], "condition=label")
    network = Components.of(cfg).scoring.model.denoiser
    groups: Any = parameters_to_train(network, "matrices")
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)
    before = {key: weight.detach().clone() for key, weight in network.named_parameters()}
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    tables = {f"{key}.weight" for key, one in network.named_modules() if isinstance(one, nn.Embedding)}
    assert tables
    for key, weight in network.named_parameters():
        decays = weight.ndim >= 2 and key not in tables
        assert torch.allclose(weight, before[key] * (0.95 if decays else 1)), key
    assert sum(len(group["params"]) for group in groups) == len(before)


def test_a_training_decays_only_what_it_is_asked_to(tmp_path: Path) -> None:
    """Of a network whose gradients are cut to nothing, so that what moves is what decays."""
    found = {}
    for decayed in ("all", "matrices"):
        cfg = composed(
            *TINY,
            f"paths.runs={tmp_path}",
            "training.steps=3",
            "training.warmup=0",
            "optimizer.weight_decay=0.9",
            "optimizer.lr=0.1",
            "training.clip=1e-30",
            "ema.decay=0",
            "trainer.progress=false",
            f"training.weight_decay={decayed}",
        )
        run = Run.of(cfg)
        stages.train(cfg, run)
        found[decayed] = load_file(run.fit.checkpoints / "ema.safetensors")
    assert len(list(tmp_path.glob("fits/*"))) == 2
    for key, value in found["all"].items():
        if value.ndim < 2 and bool((value.abs() > 1e-9).any()):
            assert float(found["matrices"][key].norm()) > 1.05 * float(value.norm()), key
        elif value.ndim >= 2:
            assert torch.allclose(value, found["matrices"][key], atol=1e-6), key
