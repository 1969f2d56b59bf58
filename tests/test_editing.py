"""Given pictures: samples start from them, keep a part of them, or are asked for what they show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffsweep import commands
from diffsweep.conditioners.picture_map import coarse
from diffsweep.data.digits import Digits
from diffsweep.diffusion import GaussianMixture, Sampler
from diffsweep.diffusion.partial import noised, starting_from
from diffsweep.diffusion.schedules import Cosine
from diffsweep.diffusion.solvers import Heun
from diffsweep.diffusion.spacing import Karras
from finished_runs import CONF, DIGITS, finish

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of digits, one that is told a coarser version of them, one of points."""
    runs = tmp_path_factory.mktemp("project") / "runs"
    finish(runs, *DIGITS, "sampler=ddim", "sampler.nfe=10")
    finish(runs, *DIGITS, "sampler=ddim", "condition=superres", "condition.superres.factor=2")
    points = ["dataset=moons", "backbone=mlp", "backbone.width=16", "backbone.depth=1", "training.steps=20"]
    finish(runs, *points, "training.warmup=5", "evaluation.samples=64", "trainer.progress=false")
    return runs


@pytest.fixture(scope="module")
def cells(runs: Path) -> dict[str, str]:
    results = [json.loads(path.read_text()) for path in runs.glob("fits/*/cells/*/result.json")]
    return {one["dataset"] + (" coarse" if "agreement_superres" in one else ""): one["cell"] for one in results}


@pytest.fixture
def call(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(CONF)
    for number, pixels in enumerate(Digits().load("test").x[:3].numpy()[:, 0]):
        Image.fromarray(pixels).save(f"{number}.png")
    half = np.zeros((8, 8), np.uint8)
    half[:, 4:] = 255
    Image.fromarray(half).save("half.png")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = commands.main(["sample", "--runs", str(runs), "--device", "cpu", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def drawn(folder: str) -> np.ndarray:
    return np.load(Path(folder) / "samples.npz")["arr_0"][..., 0].astype(int)


def given(*numbers: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f"{number}.png")) for number in numbers]).astype(int)


def test_what_is_not_painted_anew_stays_to_the_last_bit(call: Call, cells: dict[str, str]) -> None:
    words = ["--inpaint", "0.png", "1.png", "--mask", "half.png", "-n", "5"]
    assert call(cells["digits"], *words, "--out", "a")[0] == 0
    assert call(cells["digits"], "-n", "5", "--out", "b")[0] == 0
    samples, free = drawn("a"), drawn("b")
    assert np.array_equal(samples[:, :, :4], given(0, 1, 0, 1, 0)[:, :, :4])
    assert not np.array_equal(samples[:, :, 4:], given(0, 1, 0, 1, 0)[:, :, 4:])
    assert not np.array_equal(samples, free)
    # Picture i is one function of its number: another count changes none of them.
    assert call(cells["digits"], *words[:-1], "2", "--out", "c")[0] == 0
    assert np.array_equal(drawn("c"), samples[:2])


def test_the_less_strength_the_nearer_to_the_picture_that_it_starts_from(call: Call, cells: dict[str, str]) -> None:
    distances = []
    for strength in ("0.1", "0.5", "1"):
        code, out, _ = call(cells["digits"], "--from", "0.png", "--strength", strength, "-n", "8", "--out", strength)
        assert code == 0
        assert f"{max(1, round(10 * float(strength)))} network calls" in out
        distances.append(np.abs(drawn(strength) - given(*[0] * 8)).mean())
    assert distances == sorted(distances)
    assert distances[0] < distances[-1] / 2
    said = json.loads(Path("0.5/settings.json").read_text())
    assert said["pictures"]["start"] == ["0.png"]
    assert said["pictures"]["strength"] == 0.5


def test_a_start_in_the_middle_keeps_the_distribution_exactly() -> None:
    """Data under noise, taken down by an exact denoiser, are data again: means and spreads of both halves."""
    mixture = GaussianMixture.of([0.5, 0.5], [[-1.0], [2.0]], [0.2, 0.4])
    torch.manual_seed(0)
    side = torch.rand(40_000, 1) < 0.5
    x0 = torch.where(side, -1 + 0.2 * torch.randn(40_000, 1), 2 + 0.4 * torch.randn(40_000, 1))
    part = starting_from(Sampler(Heun(), Karras(), nfe=199), 0.5)
    found = part(mixture, noised(x0, torch.randn(40_000, 1), part.levels(Cosine())), schedule=Cosine())
    assert len(part.levels(Cosine())) == 51
    for low, mean, deviation in ((True, -1.0, 0.2), (False, 2.0, 0.4)):
        half = found[(found < 0.4) == low]
        assert float(half.mean()) == pytest.approx(mean, abs=0.01)
        assert float(half.std()) == pytest.approx(deviation, rel=0.02)
    assert float((found < 0.4).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_samples_are_asked_for_what_the_given_picture_shows(call: Call, cells: dict[str, str]) -> None:
    # A picture of half the size has just the means over squares that are asked for.
    small = coarse(torch.from_numpy(given(1))[None].float(), 2)[0, 0, ::2, ::2].round()
    Image.fromarray(small.numpy().astype(np.uint8)).save("small.png")
    for name, word in (("whole", "1.png"), ("small", "small.png"), ("other", "2.png")):
        assert call(cells["digits coarse"], "--like", word, "-n", "6", "--out", name)[0] == 0
    assert np.abs(drawn("whole") - drawn("small")).mean() < 1
    assert np.abs(drawn("whole") - drawn("other")).mean() > 3


def test_refusals_are_one_line(call: Call, cells: dict[str, str]) -> None:
    Path("no.png").write_text("no picture")
    black = Image.new("L", (8, 8))
    black.save("black.png")
    digits = cells["digits"]
    for words, line in (
        ([digits, "--inpaint", "0.png"], "--inpaint needs a mask"),
        ([digits, "--mask", "half.png"], "--mask says what is painted anew of a picture"),
        ([digits, "--inpaint", "0.png", "--mask", "black.png"], "black.png has no white"),
        ([digits, "--from", "no.png"], "no.png cannot be read as a picture: no picture"),
        ([digits, "--from", "absent.png"], "absent.png cannot be read: No such file or directory"),
        ([digits, "--from", "0.png", "--strength", "1.5"], "strength=1.5 must be above 0 and at most 1"),
        ([digits, "--like", "0.png"], "this model is told nothing that is read from a picture"),
        ([cells["moons"], "--from", "0.png"], "dataset=moons has none: points"),
    ):
        code, out, err = call(*words, "-n", "2")
        assert (code, out) == (2, ""), words
        assert line in err.strip().splitlines()[-1], (words, err)
        assert not Path("samples").exists()
