"""The parts of a training: what a step sees, how the optimizer is driven, what the average is."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import LightningModule
from safetensors.torch import load_file

from diffsweep.conditioners import Label
from diffsweep.data.examples import Dataset, Examples, Split
from diffsweep.data.modality import LATENTS
from diffsweep.data.source import Source
from diffsweep.diffusion import Denoiser, Sampler
from diffsweep.diffusion.noise import SDE
from diffsweep.diffusion.schedules import Cosine
from diffsweep.diffusion.solvers import Euler
from diffsweep.diffusion.spacing import Time
from diffsweep.diffusion.target import V
from diffsweep.random_streams import generator
from diffsweep.runs import stages
from diffsweep.scoring.sampling import Model, Sampling
from diffsweep.settings import LoadingSettings
from diffsweep.sweep.store.record import Run
from diffsweep.training.batches import Batch, Batches, resident
from diffsweep.training.ema import Averaging
from diffsweep.training.muon import Muon, orthogonal
from settings import training_settings
from tiny import TINY

CONF = Path(__file__).parent.parent / "conf"


def draw(shape: tuple[int, ...], stream: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(shape[0], generator=stream), torch.randn(shape, generator=stream)


X = torch.arange(10.0)[:, None].repeat(1, 3)
TOLD = {"label": Label(10, drop=0.2)}


def batches(x: torch.Tensor = X, start: int = 0, rank: int = 0, ranks: int = 1, **changes: object) -> Batches:
    labels = torch.arange(len(x))
    settings = training_settings(**changes)
    return Batches(Examples(x, labels), draw, settings, TOLD, start, rank, ranks)


class Noisy:
    """Ten examples that are other ones in each epoch, read by several threads."""

    labels = torch.arange(10)

    def __len__(self) -> int:
        return 10

    def take(self, numbers: torch.Tensor) -> Examples:
        return Examples(X[numbers], self.labels[numbers])

    def augmented(self, numbers: torch.Tensor, seeds: torch.Tensor) -> Examples:
        return Examples(X[numbers] + (seeds % 1000)[:, None] / 1000, self.labels[numbers])

    def digest(self) -> str:
        return "noisy"


def same(a: Batch, b: Batch) -> bool:
    return all(map(torch.equal, tensors(a), tensors(b)))


def tensors(batch: Batch) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    batch.map(lambda value: (found.append(value), value)[1])
    return found


def test_a_step_is_a_function_of_its_number() -> None:
    whole = list(batches())
    for start in (0, 1, 5, 11):
        assert all(same(a, b) for a, b in zip(whole[start:], batches(start=start), strict=True))
    assert not same(whole[0], whole[1])
    assert not torch.equal(whole[0].eps, next(iter(batches(seed=4))).eps)


def test_every_example_is_seen_once_an_epoch() -> None:
    labels = torch.cat([batch.condition["label"].value for batch in batches(steps=15) if batch.condition])
    for epoch in labels.view(6, 10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert not torch.equal(labels[:10], labels[10:20])


def test_ranks_share_the_batch_of_one() -> None:
    whole = list(batches())
    parts = [list(batches(rank=rank, ranks=2)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        assert same(batch.map(lambda value: value[0::2]), parts[0][step])
        assert same(batch.map(lambda value: value[1::2]), parts[1][step])
    with pytest.raises(ValueError, match=r"training.batch_size=4 cannot be shared evenly by 3 devices"):
        batches(ranks=3)


@pytest.mark.parametrize("source", [Examples(X, torch.arange(10)), Noisy()], ids=["plain", "augmented"])
def test_reading_ahead_changes_no_batch(source: Source) -> None:
    """Whatever the number of threads and of batches that lie ready, from any step on, on any number of processes."""

    def read(start: int = 0, rank: int = 0, ranks: int = 1, loading: LoadingSettings | None = None) -> list[Batch]:
        settings = training_settings(flip=True)
        return list(Batches(source, draw, settings, TOLD, start, rank, ranks, loading=loading))

    whole = read()
    for workers, prefetch in ((1, 1), (2, 1), (3, 20)):
        ahead = read(start=5, loading=LoadingSettings(0, workers, prefetch))
        assert len(ahead) == 7
        assert all(same(a, b) for a, b in zip(whole[5:], ahead, strict=True))
        for rank in (0, 1):
            part = read(rank=rank, ranks=2, loading=LoadingSettings(0, workers, prefetch))
            for a, b in zip(whole, part, strict=True):
                assert same(a.map(lambda value, rank=rank: value[rank::2]), b)


def test_an_augmented_source_gives_other_variants_in_each_epoch() -> None:
    source = Noisy()
    assert resident(source, torch.device("cpu"), LoadingSettings()) is None
    variants: dict[int, set[float]] = {}
    for batch in Batches(source, draw, training_settings(steps=15), TOLD):
        assert batch.condition is not None
        for x0, label in zip(batch.x0, batch.condition["label"].value, strict=True):
            assert int(x0[0]) == int(label)
            variants.setdefault(int(label), set()).add(float(x0[0]))
    assert {len(values) for values in variants.values()} == {6}


def test_an_error_of_a_reader_is_raised_at_its_step() -> None:
    class Broken(Noisy):
        def augmented(self, numbers: torch.Tensor, seeds: torch.Tensor) -> Examples:
            if 7 in numbers.tolist():
                raise ValueError("number 7 cannot be read")
            return super().augmented(numbers, seeds)

    done = []
    with pytest.raises(ValueError, match="number 7 cannot be read"):
        done.extend(Batches(Broken(), draw, training_settings(), loading=LoadingSettings(0, 3, 3)))
    assert len(done) == 0 or all(7 not in batch.labels for batch in done)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data")]


def test_what_fits_lies_on_the_device_and_what_does_not_is_read_ahead() -> None:
    source = Examples(X, torch.arange(10))
    device = torch.device("cpu")
    assert resident(source, device, LoadingSettings(resident=1e-12)) is source
    assert resident(source, device, LoadingSettings(resident=0)) is None


def test_flips_mirror_half_of_the_images() -> None:
    images = torch.tensor([0, 1], dtype=torch.uint8).expand(64, 1, 2, 2)
    batch = next(iter(batches(images, batch_size=64, flip=True)))
    mirrored = (batch.x0[:, 0, 0, 0] == 1).float().mean()
    assert 0.25 < float(mirrored) < 0.75


def test_streams_differ_by_purpose_and_number() -> None:
    seen = {
        float(torch.rand(1, generator=generator(seed, purpose, index)))
        for seed in (0, 1)
        for purpose in ("step", "image")
        for index in range(100)
    }
    assert len(seen) > 395


def test_the_learning_rate_rises_and_falls() -> None:
    linear, cosine, constant = (
        training_settings(steps=110, warmup=10, decay=decay).learning_rate_factor
        for decay in ("linear", "cosine", "constant")
    )
    assert linear(0) == pytest.approx(0.1)
    assert linear(9) == pytest.approx(1.0)
    assert linear(60) == pytest.approx(0.5)
    assert linear(110) == 0
    assert cosine(60) == pytest.approx(0.5)
    assert constant(100) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "training.steps=0 must be a whole number, 1 or more"),
        ({"warmup": -1}, "training.warmup=-1 must be a whole number, 0 or more"),
        ({"decay": "sqrt"}, "training.decay=sqrt is unknown: must be constant, linear or cosine"),
        ({"clip": -1.0}, "training.clip=-1.0 must be above 0"),
        *[({"ema_decay": value}, r"ema\.decay=") for value in (-0.1, 1.0, math.nan)],
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_settings(**change)


def test_the_average_warms_up() -> None:
    """Against the recursion computed by hand in float64."""
    averaging, module, trainer = Averaging(0.9), _OneWeight(), SimpleNamespace(global_step=0)
    averaging.on_fit_start(trainer, module)  # type: ignore[arg-type]
    expected = 0.0
    for n, value in enumerate([1.0, 2.0, 5.0, -1.0, 0.5] * 8):
        trainer.global_step = n + 1
        module.weight.data.fill_(value)
        for _ in range(2):
            # A batch without a step of the optimizer, as when gradients are summed, changes nothing.
            averaging.on_train_batch_end(trainer, module, None, None, n)  # type: ignore[arg-type]
        decay = min(0.9, (1 + n) / (10 + n)) if n else 0.0
        expected = decay * expected + (1 - decay) * value
    assert float(averaging.averaged(module)["weight"]) == pytest.approx(expected, rel=1e-5)
    assert float(averaging.averaged(module)["other_name"]) == pytest.approx(expected, rel=1e-5)
    averaging.on_train_end(trainer, module)  # type: ignore[arg-type]
    assert float(module.weight) == pytest.approx(expected, rel=1e-5)


class _OneWeight(LightningModule):
    """A weight with two names, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.other_name = torch.nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("count", torch.zeros(1))


def test_orthogonal_keeps_directions_and_levels_their_lengths() -> None:
    for shape in ((3, 8, 8), (2, 5, 20), (2, 20, 5)):
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        got = orthogonal(matrices)
        values = torch.linalg.svdvals(got)
        assert float(values.min()) > 0.3
        assert float(values.max()) < 1.3
        # The same singular vectors: in their basis the result is diagonal.
        basis = u.mT @ got @ v.mT
        torch.testing.assert_close(basis, torch.diag_embed(torch.diagonal(basis, dim1=1, dim2=2)), atol=2e-3, rtol=0)


def test_muon_trains_vectors_as_adam_and_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 6), torch.randn(64, 4)

    def model() -> torch.nn.Module:
        torch.manual_seed(1)
        return torch.nn.Linear(6, 4)

    def run(net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (net(x) - y).square().mean().backward()
            optimizer.step()

    whole, halves = model(), model()
    run(whole, Muon(whole.parameters()), 20)
    first = Muon(halves.parameters())
    run(halves, first, 10)
    second = Muon(halves.parameters())
    second.load_state_dict(first.state_dict())
    run(halves, second, 10)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)

    ours, theirs = torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.ones(5))
    muon, adam = Muon([ours], vector_lr=0.01), torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99))
    for step in range(30):
        for p in (ours, theirs):
            p.grad = torch.sin(torch.arange(5.0) + step) * (step + 1)
        muon.step()
        adam.step()
    torch.testing.assert_close(ours.data, theirs.data)
    with pytest.raises(ValueError, match=r"^lr=-1 must be above 0"):
        Muon([ours], lr=-1)


class Floats(Dataset):
    """Unlabelled images that are stored as the network sees them."""

    name = "floats"

    def __init__(self) -> None:
        super().__init__((1, 4, 4), classes=0, sigma_data=0.5)
        self.modality = LATENTS

    def load(self, split: Split) -> Examples:
        raise NotImplementedError


class Backbone(torch.nn.Module):
    def forward(self, x: torch.Tensor, logsnr: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return torch.sin(x * 3) * logsnr.view(-1, 1, 1, 1).clamp(-1, 1)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_sample_i_does_not_know_its_batch(eta: float) -> None:
    denoiser = Denoiser(Backbone(), Cosine(), V())
    model = Model(denoiser, Cosine(), Floats())
    sampling = Sampling(model, Sampler(Euler(), Time(), 6, SDE(eta)), seed=7)
    together = sampling.predict_step(torch.arange(12), 0)
    assert together.numbers.tolist() == list(range(12))
    for some in ([5], [11, 0], [3, 4, 5, 6]):
        alone = sampling.predict_step(torch.tensor(some), 0)
        torch.testing.assert_close(alone.samples, together.samples[some], rtol=0, atol=1e-6)


def test_sample_i_starts_from_the_same_noise_with_every_sampler() -> None:
    starts = []

    class Seen(torch.nn.Module):
        def forward(self, x: torch.Tensor, logsnr: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
            starts.append(x.clone())
            return x * 0

    for sampler in (Sampler(Euler(), Time(), 1), Sampler(Euler(), Time(), 1, SDE(1.0))):
        model = Model(Denoiser(Seen(), Cosine(), V()), Cosine(), Floats())
        Sampling(model, sampler, seed=7).predict_step(torch.arange(3), 0)
    torch.testing.assert_close(starts[0], starts[1])


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("dataset", ["mixture", "digits"])
def test_a_step_in_parts_is_the_step_to_rounding(dataset: str, parts: int, tmp_path: Path) -> None:
    """With labels, a learned weight and a limit of the gradient, which must see the whole gradient."""
    words = ["dataset=digits", "backbone.width=8", "condition=label", "diffuser/weight=learned"]
    words = [*TINY, "condition=label"] if dataset == "mixture" else words
    words += [
        "training.steps=5",
        "training.batch_size=32",
        "training.warmup=0",
        "training.clip=0.5",
        "trainer.threads=1",
    ]
    words += ["optimizer=adam", "optimizer.lr=0.001", "trainer.progress=false"]
    found = []
    for accumulate in (1, parts):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            given = [f"paths.runs={tmp_path / str(accumulate)}", f"training.accumulate={accumulate}"]
            cfg = compose("config", [*words, *given])
        run = Run.of(cfg)
        stages.train(cfg, run)
        found.append((load_file(run.fit.checkpoints / "ema.safetensors"), (run.fit.result() or {})["loss"]))
    (whole, loss), (split, other) = found
    assert other == pytest.approx(loss, rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-4, atol=5e-5)


def test_parts_must_divide_the_batch() -> None:
    with pytest.raises(ValueError, match=r"training\.accumulate=3 does not divide training\.batch_size=4"):
        training_settings(accumulate=3)
