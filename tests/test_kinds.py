"""Videos and sounds by the door that users come by: trained, resumed, scored, shown, heard; and their features."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import forked_runs
from diffsweep.commands import main
from diffsweep.data.digits import Digits
from diffsweep.data.moving_digits import MovingDigits
from diffsweep.data.tones import LOWEST, STEP, Tones
from diffsweep.evaluation.classifier import classifier
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.frames import frames
from diffsweep.evaluation.frechet import Frechet, frechet_distance
from diffsweep.evaluation.mel import mel
from diffsweep.evaluation.moments import Moments
from diffsweep.grid_geometry import GridGeometry
from diffsweep.report.thumbnails import sound, strip

ROOT = Path(__file__).parent.parent
SMALL = {
    "moving_digits": ["dataset.shape=[1,4,16,16]", "dataset.copies=1", "backbone.patch=2"],
    "tones": ["dataset.shape=[1,512]", "dataset.size=60", "backbone.patch=8"],
}
TINY = ["training.steps=3", "training.warmup=0", "backbone.width=8", "sampler.nfe=3", "trainer.progress=false"]
TINY += ["evaluation.samples=9"]


def train(folder: Path, *words: str) -> str:
    done = forked_runs.run([str(ROOT / "train.py"), *TINY, *words], folder, dict(os.environ), 300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the shipped sets -----------------------------------------------------------------------------------------------


def test_a_moving_digit_is_a_digit_in_every_frame_and_bounces() -> None:
    dataset = MovingDigits(copies=2)
    for split in ("train", "test"):
        digits, videos = Digits().load(split), dataset.load(split)
        assert len(videos) == 2 * len(digits)
        assert torch.equal(videos.labels, digits.labels.repeat(2))
        # Nothing of a digit is ever cut off.
        ink = digits.x.float().flatten(1).sum(1).repeat(2)
        assert torch.equal(videos.x.float().flatten(3).sum(3)[:, 0], ink[:, None].expand(-1, 8))
    x = dataset.load("train").x[:, 0].float()
    rows = (x.sum(3) * torch.arange(16)).sum(2) / x.sum((2, 3))
    steps = rows.diff(dim=1)
    assert steps.abs().max() < 3.6
    # Some turn back on the way, and all move.
    assert ((steps[:, :-1] * steps[:, 1:]) < 0).any(1).float().mean() > 0.2
    columns = (x.sum(2) * torch.arange(16)).sum(2) / x.sum((2, 3))
    assert (steps.abs().sum(1) + columns.diff(dim=1).abs().sum(1)).min() > 2
    assert not torch.equal(MovingDigits(copies=2, seed=1).load("train").x, dataset.load("train").x)


def test_a_tone_has_the_pitch_that_its_label_says() -> None:
    sounds = Tones(size=80).load("test")
    spectrum = torch.fft.rfft(sounds.x[:, 0].double() * torch.hann_window(2048, dtype=torch.float64), 16384).abs()
    loudest = spectrum.argmax(1) * 4000 / 16384
    expected = LOWEST * STEP ** sounds.labels.double()
    assert (loudest / expected - 1).abs().max() < 0.02
    peak = sounds.x.double().abs().amax((1, 2)) / 32768
    assert peak.min() >= 0.499
    assert peak.max() <= 1


# --- features -------------------------------------------------------------------------------------------------------


def distances(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    extractor = frames(classifier("moving_digits"))
    ours, theirs = extractor(x), extractor(y)
    return {
        name: frechet_distance(Moments.of(ours[name]), Moments.of(theirs[name])) for name in ("frames", "differences")
    }


def test_each_distance_sees_what_it_is_named_for() -> None:
    dataset = MovingDigits(copies=1)
    test, real = dataset.load("test").x, dataset.load("train").x[:500]
    floor = distances(test, real)
    # Frames in another order look the same, and move otherwise.
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    shuffled = distances(test[:, :, order], real)
    assert shuffled["frames"] == pytest.approx(floor["frames"], rel=1e-3)
    assert shuffled["differences"] > 3 * floor["differences"]
    still = distances(test[:, :, :1].expand(-1, -1, 8, -1, -1), real)
    assert still["differences"] > 20 * floor["differences"]
    faint = distances(test // 2, real)
    assert faint["frames"] > 5 * floor["frames"]


def test_numbers_of_videos_say_what_is_measured() -> None:
    evaluation = Evaluation(frames(classifier("moving_digits")), [Frechet("frames"), Frechet("differences")])
    assert evaluation.main == "fd_frames_moving_digits"
    assert [evaluation.extractor.called(metric.short) for metric in evaluation.metrics] == [
        "fd_frames_moving_digits",
        "fd_differences_moving_digits",
    ]
    with pytest.raises(ValueError, match="fd_differences needs differences, which extractor digits does not give"):
        Evaluation(classifier("digits"), [Frechet("differences")])


def test_mel_hears_level_and_pitch_as_arithmetic_has_it() -> None:
    extractor = mel(8000, bands=16)
    assert (extractor.dimension, extractor.called("fd")) == (48, "fd_mel")
    time = torch.arange(4000) / 8000
    loud = (16384 * torch.sin(2 * torch.pi * 1000 * time)).round().to(torch.int16)[None, None]
    found = extractor(torch.cat([loud, loud // 4, torch.zeros_like(loud)]))["features"]
    mean, std, change = found.unflatten(1, (3, 16)).unbind(1)
    # A quarter is 12 dB less, where there is anything; a steady tone does not change; silence is 100 dB down.
    band = int(mean[0].argmax())
    assert mean[0, band] - mean[1, band] == pytest.approx(2 * np.log10(4), abs=0.01)
    assert std[0, band] < 0.01
    assert change[0, band] < 0.01
    assert mean[2] == pytest.approx(torch.full((16,), -10.0))
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 18) / 2595) - 1)
    assert edges[band] < 1000 < edges[band + 2]
    assert not torch.equal(extractor(loud)["features"], mel(8000, 8).network(loud)[..., :48])
    with pytest.raises(ValueError, match="mel with 16 bands needs sounds of 256 samples or more, not 100"):
        extractor(loud[..., :100])


# --- by the door ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["moving_digits", "tones"])
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A sweep over two samplers."""
    folder = tmp_path_factory.mktemp(request.param)
    words = [f"dataset={request.param}", *SMALL[request.param], "hydra.sweep.dir=runs/sweeps/one"]
    train(folder, "-m", *words, "sampler=ddim,heun")
    return request.param, folder


def cells(folder: Path) -> list[Path]:
    return sorted((folder / "runs" / "fits").glob("*/cells/*"))


@pytest.mark.slow
def test_a_sweep_is_scored_shown_and_heard(swept: tuple[str, Path]) -> None:
    kind, folder = swept
    found = cells(folder)
    assert len(found) == 2
    for cell in found:
        result = json.loads((cell / "result.json").read_text())
        with Image.open(cell / "samples.png") as picture:
            geometry = GridGeometry.of(picture)
        assert geometry is not None
        assert geometry.count == 9
        if kind == "moving_digits":
            assert result["metric"] == "fd_frames_moving_digits"
            assert {"fd_frames_moving_digits", "fd_differences_moving_digits"} <= result.keys()
            assert result["bits"] == 8
            assert (geometry.frames, geometry.frame_width, geometry.height) == (4, 16, 16)
            with Image.open(cell / "samples.gif") as gif:
                assert gif.n_frames == 4  # type: ignore[attr-defined]
        else:
            assert result["metric"] == "fd_mel"
            assert result["bits"] == 16
            assert geometry.frames == 1
            with wave.open(str(cell / "samples.wav")) as heard:
                assert (heard.getframerate(), heard.getnchannels(), heard.getsampwidth()) == (4000, 1, 2)
                assert heard.getnframes() == 9 * (512 + 1000)
    page = (folder / "runs" / "sweeps" / "one" / "report.html").read_text()
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert text is not None
    data = json.loads(text[1])
    assert set(data["strips"]) == {cell.name for cell in found}
    for cell in found:
        shown = data["strips"][cell.name]
        content = base64.b64decode(shown["src"].split(",")[1])
        with Image.open(io.BytesIO(content)) as picture:
            assert getattr(picture, "n_frames", 1) == (4 if kind == "moving_digits" else 1)
            assert picture.size == (9 * shown["width"], shown["height"])
        if kind == "tones":
            heard = base64.b64decode(data["sounds"][cell.name].removeprefix("data:audio/wav;base64,"))
            assert heard == (cell / "samples.wav").read_bytes()
    assert bool(data["sounds"]) == (kind == "tones")


@pytest.mark.slow
def test_samples_are_files_of_their_kind(
    swept: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, folder = swept
    monkeypatch.chdir(folder)
    for gif in ([], ["--gif"]):
        assert main(["sample", cells(folder)[0].name, "-n", "3", "--out", "out", *gif]) == 0
    printed = capsys.readouterr().out
    assert "evaluate" not in printed
    suffix = "gif" if kind == "moving_digits" else "wav"
    names = sorted(path.name for path in Path("out").iterdir())
    each = [f"{i:06d}.{suffix}" for i in range(3)]
    assert names == sorted([*each, "grid.png", f"grid.{suffix}", "samples.npz", "settings.json", "trajectory.gif"])
    with np.load("out/samples.npz") as arrays:
        x = arrays["arr_0"]
    if kind == "moving_digits":
        assert (x.shape, x.dtype) == ((3, 4, 16, 16, 1), np.uint8)
        with Image.open("out/000001.gif") as opened:
            for i in range(4):
                opened.seek(i)
                size = opened.size[0] // 16
                shown = np.asarray(opened.convert("L"))[::size, ::size]
                assert np.abs(shown.astype(int) - x[1, i, :, :, 0]).max() <= 1
    else:
        assert (x.shape, x.dtype) == ((3, 512, 1), np.int16)
        with wave.open("out/000001.wav") as heard:
            assert heard.readframes(512) == x[1].astype("<i2").tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["moving_digits", "tones"])
def test_a_training_that_was_killed_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    words = [f"dataset={kind}", *SMALL[kind], "training.steps=4", "trainer.checkpoint_seconds=0.001"]
    for place in ("whole", "stopped"):
        (tmp_path / place).mkdir()
    train(tmp_path / "whole", *words)
    stop = "import os, signal; from diffsweep.training.progress import Progress as P; end = P.on_train_batch_end\n"
    stop += "def kill(self, trainer, *rest):\n    end(self, trainer, *rest)\n"
    stop += "    trainer.global_step == 3 and os.kill(os.getpid(), signal.SIGKILL)\nP.on_train_batch_end = kill\n"
    program = tmp_path / "killed.py"
    program.write_text(stop + f"import runpy; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n")
    killed = forked_runs.run([str(program), *TINY, *words], tmp_path / "stopped", dict(os.environ), 300)
    assert killed.returncode != 0
    assert not list((tmp_path / "stopped").glob("runs/fits/*/done.json"))
    train(tmp_path / "stopped", *words)
    (one,), (other,) = (
        (tmp_path / place).glob("runs/fits/*/checkpoints/ema.safetensors") for place in ("whole", "stopped")
    )
    assert one.read_bytes() == other.read_bytes()
    (one,), (other,) = ((tmp_path / place).glob("runs/fits/*/cells/*/samples.png") for place in ("whole", "stopped"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["dataset=tones", "training.flip=true"], "training.flip=true mirrors images, and dataset=tones has sounds"),
        (["dataset=tones", "backbone=mlp"], "backbone=mlp takes points"),
        (["dataset=tones", "extractor=digits"], "does not take dataset=tones of shape (1, 2048)"),
        (["dataset=moving_digits", "extractor=mixture"], "does not take dataset=moving_digits"),
        (["dataset=moving_digits", "dataset.shape=[1,8,16,20]"], "does not fit moving_digits, whose"),
        (["dataset=moving_digits", "dataset.shape=[1,16,16]"], "videos have the shape (channel, time, height, width)"),
        (["dataset=moving_digits", "dataset.shape=[1,1,16,16]"], "shape[1]=1 must be a whole number, 2 or more"),
        (["dataset=tones", "dataset.sample_rate=100"], "dataset.sample_rate=100 must be a whole number, 4000 or more"),
        (["dataset=tones", "evaluation.extractor.bands=300"], "needs sounds of 4800 samples or more, not 2048"),
        (["dataset=tones", "metric=[frames]"], "metric fd_frames needs frames, which extractor mel does not give"),
        (["dataset=tones", "backbone.patch=3"], "backbone.patch=3 does not divide examples of shape 2048"),
        (["training.flip=true", "dataset=moons", "backbone=mlp"], "has points, which have no left"),
    ],
)
def test_what_does_not_go_together_is_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    done = forked_runs.run([str(ROOT / "train.py"), *TINY, *words], tmp_path, dict(os.environ), 300)
    assert done.returncode == 2
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/fits/*"))


# --- in a report ----------------------------------------------------------------------------------------------------


def test_a_sound_is_cut_to_the_room_that_there_is(tmp_path: Path) -> None:
    from diffsweep.data.wav import wav

    x = torch.arange(-500, 500, dtype=torch.int16)[None]
    (tmp_path / "a.wav").write_bytes(wav(x, 8000))
    found = sound(tmp_path / "a.wav", 800)
    assert found is not None
    with wave.open(io.BytesIO(base64.b64decode(found.split(",")[1]))) as heard:
        assert heard.getnframes() == 300
        assert heard.readframes(300) == x[0, :300].numpy().astype("<i2").tobytes()
    (tmp_path / "b.wav").write_bytes(b"RIFF nothing of the kind")
    assert sound(tmp_path / "b.wav", 800) is None
    assert sound(tmp_path / "c.wav", 800) is None


def test_frames_of_a_grid_are_the_very_pixels(tmp_path: Path) -> None:
    from diffsweep.data.modality import VIDEOS
    from diffsweep.scoring.sample_files import write_samples

    x = torch.randint(0, 256, (5, 3, 4, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert [path.name for path in write_samples(VIDEOS, x, tmp_path / "samples.png")] == ["samples.gif"]
    found = strip(tmp_path / "samples.png", 3)
    assert found is not None
    assert (found["images"], found["width"], found["height"]) == (3, 7, 6)
    with Image.open(io.BytesIO(base64.b64decode(found["src"].split(",")[1]))) as moving:
        for i in range(4):
            moving.seek(i)
            shown = np.asarray(moving.convert("RGB"))
            assert np.array_equal(shown, np.concatenate([one[:, i].permute(1, 2, 0).numpy() for one in x[:3]], axis=1))
