"""What a GPU asks of a training and a sampling, as far as it can be seen without one.

A tensor on torch's device "meta" has no values: nothing can be read from it, and what is copied to it shows. So a step
on it is a step on a GPU, as far as the host is concerned.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import forked_runs
from diffsweep import compilation
from diffsweep.backbones.unet import UNet
from diffsweep.data.examples import Examples
from diffsweep.runs import stages
from diffsweep.runs.build import Components, training_settings
from diffsweep.scoring.sampling import Sampling
from diffsweep.sweep.store.record import Run, read_metrics
from diffsweep.training import progress
from diffsweep.training.batches import Batches
from diffsweep.training.ema import Averaging
from diffsweep.training.fit import Fitting
from diffsweep.training.module import Training
from settings import trainer_settings
from tiny import TINY

CONF = Path(__file__).parent.parent / "conf"
META = torch.device("meta")
IMAGES = ["dataset=digits", "backbone.width=8", "backbone.groups=4", "backbone.heads=2", "training.batch_size=8"]

# Networks and diffusers whose step is followed, each with all that such a step has.
STEPS = {
    "unet": [*IMAGES, "training.flip=true", "condition=label"],
    "mlp": [*TINY],
    "learned weight and adaptive times": [
        *TINY,
        "diffuser=edm",
        "diffuser/weight=learned",
        "diffuser/times=adaptive",
    ],
    "self-conditioning": [*TINY, "diffuser=self_conditioned"],
    "learned variance": [*TINY, "diffuser=iddpm"],
    "consistency": [*TINY, "schedule=ve", "diffuser=consistency"],
    "muon": [*IMAGES, "optimizer=muon"],
}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("config", list(overrides))


def training(cfg: DictConfig, trainer: Any = None) -> tuple[Training, Callable[..., Batches]]:
    """A run's module, and its batches by a counter from given examples."""
    fitting = Components.of(cfg).fitting
    assert isinstance(fitting, Fitting)
    model, settings = fitting.scoring.model, fitting.settings
    module = Training(
        model.denoiser,
        fitting.objective,
        model.dataset.encode,
        fitting.optimizer,
        settings,
        trainer=trainer,
    )

    def batches(source: Any, **keys: Any) -> Batches:
        draw, told = fitting.objective.draw, model.conditioners
        return Batches(source, draw, settings, told, shape=model.dataset.shape, counter=True, **keys)

    return module, batches


class NoTransfers(TorchDispatchMode):
    """Refuses whatever would move values between the host and the device "meta"; a number as an argument is none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        copies = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        given = [x for x in tree_leaves((args, kwargs, found)) if isinstance(x, Tensor) and (x.ndim or copies)]
        devices = {x.device.type for x in given}
        assert devices != {"cpu", "meta"}, f"{func} moves values between host and device"
        return found


class NoNumbers(TorchFunctionMode):
    """Refuses to make tensors on the device of numbers, which copies them there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        of_numbers = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        assert not of_numbers or found.device != META, "numbers become a tensor there"
        return found


@contextlib.contextmanager
def no_transfers() -> Iterator[None]:
    with NoNumbers(), NoTransfers():
        yield


@pytest.mark.parametrize("values", [lambda: torch.ones(2).to(META), lambda: torch.tensor([1.0], device=META)])
def test_a_transfer_is_refused(values: Callable[[], Tensor]) -> None:
    with pytest.raises(AssertionError), no_transfers():
        values()


@pytest.mark.parametrize("name", STEPS)
def test_a_step_moves_nothing_between_host_and_device(name: str) -> None:
    cfg = composed(*STEPS[name])
    module, batches = training(cfg)
    module.to(META)
    optimizer, averaging = module.optimizer(module.parameters()), Averaging()
    averaging.on_fit_start(None, module)  # type: ignore[arg-type]
    images, count = "dataset=digits" in STEPS[name], 2 * cfg.training.batch_size + 1
    shape, kind = ((1, 8, 8), torch.uint8) if images else ((2,), torch.float32)
    stored = torch.empty(count, *shape, dtype=kind, device=META)
    several = iter(batches(Examples(stored, torch.zeros(count, dtype=torch.int64, device=META)), device=META))

    def step(number: int) -> None:
        module.training_step(next(several), number).backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        averaging.average(module)

    # The first one may move what stays there, as tables.
    step(0)
    with no_transfers():
        # Over the end of an epoch.
        for number in range(1, 4):
            step(number)


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Reads.count += func.overloadpacket is torch.ops.aten._local_scalar_dense
        return func(*args, **(kwargs or {}))


def trained(folder: Path, *overrides: str) -> Run:
    cfg = composed(*TINY, f"paths.runs={folder}", *overrides)
    run = Run.of(cfg)
    stages.train(cfg, run)
    return run


def test_the_loop_around_a_step_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's loop, the callbacks and the optimizer: a longer training reads no more often than a short one."""
    monkeypatch.setattr(progress, "reads_late", lambda device: True)
    counts, more = [], ["trainer.fused=true", "trainer.randomness=device"]
    for steps in (20, 60):
        Reads.count = 0
        with Reads():
            trained(tmp_path, f"training.steps={steps}", "trainer.checkpoint_seconds=1e6", *more)
        counts.append(Reads.count)
    assert counts[0] == counts[1]


def test_losses_are_read_a_line_late_and_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = trained(tmp_path / "early", "training.steps=35")
    written: list[tuple[int, int]] = []
    write = progress.Progress._write

    def noting(self: Any, trainer: Any, step: int, values: dict[str, float]) -> None:
        written.append((step, trainer.global_step))
        write(self, trainer, step, values)

    monkeypatch.setattr(progress.Progress, "_write", noting)
    monkeypatch.setattr(progress, "reads_late", lambda device: True)
    late = trained(tmp_path / "late", "training.steps=35")
    assert written == [(10, 20), (20, 30), (30, 35), (35, 35)]
    lines = [[line | {"images_per_second": 0} for line in read_metrics(run.fit.metrics_file)] for run in (early, late)]
    assert lines[0] == lines[1]
    weights = [(run.fit.checkpoints / "ema.safetensors").read_bytes() for run in (early, late)]
    assert weights[0] == weights[1]


def test_a_line_that_is_still_unread_is_in_the_record_before_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "reads_late", lambda device: True)
    # A checkpoint after every step.
    run = trained(tmp_path, "training.steps=35", "trainer.checkpoint_seconds=1e-9")
    assert [line["step"] for line in read_metrics(run.fit.metrics_file)] == [9, 19, 29, 34]


def test_a_loss_that_diverges_is_found_a_line_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "reads_late", lambda device: True)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step 10: training diverged"):
        trained(tmp_path, "training.steps=40", "optimizer.lr=1e18", "training.clip=null", "training.warmup=0")


def collected(batches: Batches) -> list[list[Tensor]]:
    """x0, u, eps, labels and who has one, of each batch."""
    return [
        [batch.x0, batch.u, batch.eps, batch.condition["label"].value, batch.condition["label"].present]
        for batch in batches
        if batch.condition is not None
    ]


@pytest.mark.parametrize("ranks", [2, 4])
def test_shares_of_a_batch_are_the_same_numbers_and_no_more_are_drawn(ranks: int) -> None:
    cfg = composed(*STEPS["unet"], "training.steps=6", "condition.label.drop=0.4")
    _, batches = training(cfg)
    stored = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = Examples(stored, torch.arange(20) % 10)
    whole = collected(batches(source))
    drawn: list[Sequence[int]] = []
    for rank in range(ranks):
        share = batches(source, rank=rank, ranks=ranks)
        draw = share.draw

        def noting(shape: Any, stream: Any, draw: Any = draw) -> Any:
            drawn.append(shape)
            return draw(shape, stream)

        object.__setattr__(share, "draw", noting)
        for mine, everything in zip(collected(share), whole, strict=True):
            for a, b in zip(mine, everything, strict=True):
                assert torch.equal(a, b[rank::ranks])
    assert set(drawn) == {(8 // ranks, 1, 8, 8)}
    # What is read ahead, and what goes on in the middle, is the same.
    later = collected(batches(source, start=4))
    ahead = collected(batches(source, loading=trainer_settings().loading))
    for found, expected in ((later, whole[4:]), (ahead, whole)):
        for some, others in zip(found, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(some, others, strict=True))
    # Every epoch has every example once: two of 20 in five batches of eight.
    seen = torch.cat([batch[0] for batch in whole[:5]]).double().square().sum((1, 2, 3))
    assert seen.unique(return_counts=True)[1].tolist() == [2] * 20
    assert len(whole) == 6
    assert any(not bool(batch[4].all()) for batch in whole)


def environment(port: int, rank: int) -> dict[str, str]:
    import os

    names = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**os.environ, "OMP_NUM_THREADS": "1", **names}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_two_and_four_processes_train_and_sample_as_one(tmp_path: Path) -> None:
    found: dict[int, Path] = {}
    for ranks in (1, 2, 4):
        found[ranks] = tmp_path / str(ranks)
        typed = [
            "train.py",
            *TINY,
            f"paths.runs={found[ranks]}",
            "trainer=gpu_fast",
            "trainer.accelerator=cpu",
            "trainer.precision=32-true",
            "trainer.compile=false",
            "trainer.threads=1",
            "trainer.log_every=10",
            "training.steps=10",
            "evaluation.samples=16",
            f"trainer.devices={ranks}",
            f"trainer.strategy={'ddp' if ranks > 1 else 'auto'}",
        ]
        port = free_port()
        processes = [forked_runs.Run(typed, Path.cwd(), environment(port, rank)) for rank in range(ranks)]
        said = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0] * ranks, said
    weights = {
        ranks: load_file(next(folder.glob("fits/*/checkpoints/ema.safetensors"))) for ranks, folder in found.items()
    }
    for ranks in (2, 4):
        for name, value in weights[1].items():
            # The order of a sum over the batch is all that may differ.
            assert float((value - weights[ranks][name]).abs().max()) < 1e-4
    names = {
        path.relative_to(folder) for folder in found.values() for path in folder.glob("fits/*/cells/*/result.json")
    }
    assert len(names) == 1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_noise_of_a_sample_follows_from_its_number_only(eta: float) -> None:
    cfg = composed(*TINY, "sampler=ddpm" if eta else "sampler=ddim", "sampler.nfe=6")
    scoring = Components.of(cfg).scoring
    settings = trainer_settings(randomness="device")
    sampling = Sampling(scoring.model, scoring.sampler, 3, trainer=settings)
    with torch.inference_mode():
        together = sampling.predict_step(torch.arange(9), 0).samples
        apart = [sampling.predict_step(numbers, 0).samples for numbers in torch.arange(9).split(4)]
        other = Sampling(scoring.model, scoring.sampler, 3).predict_step(torch.arange(9), 0).samples
    assert torch.allclose(together, torch.cat(apart), atol=1e-6)
    assert not torch.allclose(together, other, atol=1e-3)


def test_a_sampler_moves_nothing_between_host_and_device_between_its_ends() -> None:
    cfg = composed(*TINY, "sampler=ddpm", "sampler.nfe=6")
    scoring = Components.of(cfg).scoring
    sampling = Sampling(scoring.model, scoring.sampler, 3, trainer=trainer_settings(randomness="device")).to(META)
    numbers = torch.arange(5, device=META)
    with torch.inference_mode(), no_transfers():
        assert sampling.integrate(numbers).shape == (5, *scoring.model.dataset.shape)


@pytest.fixture
def no_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile refuses what it cannot put into one graph, and runs the graph as it is."""
    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "options", lambda graphs: {"fullgraph": True, "backend": "eager"})


def networks() -> list[str]:
    """The networks that have a small form, as options."""
    small = {"unet": IMAGES, "mlp": [*TINY], "dit_tiny": IMAGES[:1], "edm2_tiny": IMAGES[:1]}
    return [name for name in small if (CONF / "backbone" / f"{name}.yaml").exists()]


def options(name: str) -> list[str]:
    return [*TINY] if name == "mlp" else [*(IMAGES if name == "unet" else ["dataset=digits"]), f"backbone={name}"]


@pytest.mark.parametrize("how", ["step", "blocks"])
@pytest.mark.parametrize("name", networks())
def test_a_step_and_a_sampler_compile_without_a_break(name: str, how: Any, no_breaks: None) -> None:
    cfg = composed(*options(name), "training.batch_size=8", "training.steps=3")
    stored = Components.of(cfg).scoring.model.dataset
    source = stored.load("train")
    losses, samples = [], []
    for settings in (trainer_settings(), trainer_settings(compile=how)):
        module, batches = training(cfg, settings)
        few = Examples(source.take(torch.arange(40)).x, source.labels[:40])
        losses.append([module.training_step(batch, 0).detach() for batch in batches(few)])
        scoring = Components.of(cfg).scoring
        sampling = Sampling(scoring.model, scoring.sampler, 0, trainer=settings)
        with torch.inference_mode():
            samples.append(sampling.predict_step(torch.arange(4), 0).samples)
    assert torch.equal(torch.stack(losses[0]), torch.stack(losses[1]))
    assert torch.equal(samples[0], samples[1])


def test_repeated_blocks_are_the_outermost_of_a_kind() -> None:
    unet = UNet((1, 8, 8), width=8, groups=4, heads=2, multipliers=(1, 2), blocks=2)
    kinds = [type(block).__name__ for block in compilation.repeated_blocks(unet)]
    assert kinds == ["Block"] * 9
    assert compilation.repeated_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))) == []


def test_channels_last_and_a_fused_optimizer_change_rounding_only(tmp_path: Path) -> None:
    weights = []
    for number, more in enumerate(([], ["trainer.channels_last=true", "trainer.fused=true"])):
        cfg = composed(*IMAGES, f"paths.runs={tmp_path / str(number)}", "training.steps=5", "trainer.threads=1", *more)
        run = Run.of(cfg)
        stages.train(cfg, run)
        weights.append(load_file(run.fit.checkpoints / "ema.safetensors"))
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=2e-4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.randomness=gpu", "trainer.randomness=gpu must be host or device"),
        ("trainer.compile=steps", "trainer.compile=steps must be true or false, step or blocks"),
        ("trainer.cuda_graphs=true", "trainer.cuda_graphs=true needs trainer.compile=true, step or blocks"),
        ("trainer.fused=1", "trainer.fused=1 must be true or false"),
    ],
)
def test_wrong_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Components.of(composed(*TINY, override))


def test_a_diffuser_that_asks_torch_for_its_randomness_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))
    own = ["~diffuser", "+diffuser._target_=absolute.Absolute"]
    Components.of(composed(*TINY, *own))
    with pytest.raises(ValueError, match=r"trainer\.randomness=device does not go with diffuser=Absolute"):
        Components.of(composed(*TINY, *own, "trainer.randomness=device"))


def test_settings_that_change_a_result_are_signed_and_defaults_are_not() -> None:
    before = Run.of(composed(*TINY))
    for default in ("trainer.randomness=host", "trainer.fused=false", "trainer.channels_last=false"):
        assert Run.of(composed(*TINY, default)).fit.signature == before.fit.signature
    changed = ["trainer.randomness=device", "trainer.fused=true", "trainer.channels_last=true", "trainer.compile=step"]
    names = {Run.of(composed(*TINY, one)).fit.signature for one in changed}
    assert len(names | {before.fit.signature}) == 5
    assert training_settings(composed(*TINY)).steps > 0
