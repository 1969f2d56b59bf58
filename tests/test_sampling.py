"""Samples are looked at where they were drawn: features of all, pictures of a few, the broken ones counted."""

from __future__ import annotations

import functools
import os
import signal

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from diffsweep.conditioners import Label
from diffsweep.data.examples import Dataset, Examples, Split
from diffsweep.diffusion import Denoiser, Sampler
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.schedules import Cosine
from diffsweep.diffusion.solvers import Euler
from diffsweep.diffusion.spacing import Time
from diffsweep.diffusion.target import X0
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.frechet import Frechet
from diffsweep.scoring.sampling import FeatureExtraction, Model, SampleSet, Sampling, draw

trainer = functools.partial(
    Trainer,
    accelerator="cpu",
    devices=1,
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
)


class Means(nn.Module):
    """The mean of every row and column."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x.float()
        return {"features": torch.cat((x.mean(dim=(1, 2)), x.mean(dim=(1, 3))), dim=1), "logits": x.flatten(1)[:, :3]}


class Backbone(nn.Module):
    """Bends its input; for samples that start from much noise in one pixel it breaks."""

    def __init__(self, breaks_at: float = float("inf")) -> None:
        super().__init__()
        self.breaks_at = breaks_at

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        broken = (x[:, :, :1, :1] > self.breaks_at) & (logsnr.view(-1, 1, 1, 1) < -5)
        return torch.where(broken, torch.nan, torch.sin(3 * x))


class Squares(Dataset):
    """Images of 4 x 4 pixels, of which only the shape is used."""

    name = "squares"

    def __init__(self, classes: int) -> None:
        super().__init__((1, 4, 4), classes, sigma_data=0.5)

    def load(self, split: Split) -> Examples:
        raise NotImplementedError


EXTRACTOR = Extractor(Means(), "means", 8, "means", ("features", "logits"))
SHOWN_TEN = FeatureExtraction(EXTRACTOR, ["logits"], shown=10)
ALL_SHOWN = FeatureExtraction(EXTRACTOR, ["logits"], shown=30)


def drawn(
    n: int = 30,
    batch_size: int = 7,
    breaks_at: float = float("inf"),
    classes: int = 3,
    conditional: bool = True,
    extraction: FeatureExtraction = SHOWN_TEN,
) -> SampleSet:
    model = Model(
        Denoiser(Backbone(breaks_at), Cosine(), X0()),
        Cosine(),
        Squares(classes),
        {"label": Label(classes)} if conditional else {},
    )
    sampling = Sampling(model, Sampler(Euler(), Time(), 6), seed=7, extraction=extraction)
    found = draw(sampling, trainer, n, batch_size, show=False)
    assert found is not None
    return found


def test_features_are_those_of_the_pictures_and_pictures_are_kept_no_more_than_are_shown() -> None:
    found, every = drawn(), drawn(extraction=ALL_SHOWN)
    assert found.features is not None
    assert (len(found.samples), len(every.samples), len(found.features)) == (10, 30, 30)
    assert torch.equal(found.samples, every.samples[:10])
    assert found.features["features"].equal(Means()(every.samples)["features"])
    assert set(found.features.outputs) == {"features", "logits"}
    assert found.broken == 0
    assert found.seconds > 0 < found.extract_seconds


@pytest.mark.parametrize("batch_size", [1, 4, 30, 100])
def test_the_last_batch_is_never_dropped_and_its_size_changes_nothing(batch_size: int) -> None:
    found, other = drawn(batch_size=batch_size), drawn(batch_size=7)
    assert found.features is not None
    assert other.features is not None
    assert found.features["features"].equal(other.features["features"])
    assert torch.equal(found.samples, other.samples)


def test_labels_are_those_that_were_asked_for_if_the_model_was_told_any() -> None:
    told, alone, unlabelled = drawn(), drawn(conditional=False), drawn(classes=0, conditional=False)
    assert told.features is not None
    assert told.features.labels is not None
    assert told.features.labels.tolist() == [i % 3 for i in range(30)]
    for found in (alone, unlabelled):
        assert found.features is not None
        assert found.features.labels is None


def test_broken_samples_are_counted_shown_grey_and_not_scored() -> None:
    whole, found = drawn(extraction=ALL_SHOWN), drawn(breaks_at=0.8, extraction=ALL_SHOWN)
    assert found.features is not None
    grey = found.samples.eq(128).flatten(1).all(dim=1)
    assert 0 < found.broken < 15
    assert int(grey.sum()) == found.broken
    assert len(found.features) == 30 - found.broken
    assert torch.equal(found.samples[~grey], whole.samples[~grey])
    assert found.features["features"].equal(Means()(whole.samples[~grey])["features"])
    kept = whole.samples[~grey]
    assert found.saturated == ((kept == 0) | (kept == 255)).double().mean().item() > 0
    assert found.features.labels is not None
    assert found.features.labels.tolist() == [i % 3 for i in range(30) if not grey[i]]
    everything = drawn(breaks_at=-100)
    assert everything.features is not None
    assert (everything.broken, len(everything.features), everything.saturated) == (30, 0, None)


@pytest.mark.parametrize(
    ("signum", "ends"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_ends_the_sampling_at_once(
    signum: signal.Signals, ends: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signum)
    calls = []

    def forward(self: Backbone, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            os.kill(os.getpid(), signum)
        return x

    monkeypatch.setattr(Backbone, "forward", forward)
    with pytest.raises(ends) as caught:
        drawn()
    assert len(calls) == 3
    assert isinstance(caught.value, KeyboardInterrupt) or caught.value.args == (143,)
    assert signal.getsignal(signum) is before


def test_one_pass_of_the_network_serves_all_metrics() -> None:
    passes = []

    class Counting(Means):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            passes.append(len(x))
            return Means.forward(self, x)

    extractor = Extractor(Counting(), "means", 8, "means", ("features", "logits"))
    evaluation = Evaluation(extractor, [Frechet(), Frechet()])
    found = drawn(extraction=FeatureExtraction(extractor, evaluation.outputs))
    assert found.features is not None
    assert sum(passes) == 30
    assert set(found.features.outputs) == {"features"}
