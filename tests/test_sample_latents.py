"""`diffsweep sample` of a model in latents: decoding in batches, guidance, starting from pictures, inpainting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffsweep import commands
from diffsweep.data.digits import Digits
from finished_runs import CONF, finish
from prerequisites import need_module
from test_autoencoders import TINY

Call = Callable[..., tuple[str, np.ndarray]]


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model in latents that is told labels, and its cell."""
    need_module("diffusers")
    runs = tmp_path_factory.mktemp("project") / "runs"
    changed = ("autoencoder.training.steps", "autoencoder.losses", "autoencoder.discriminator", "trainer.threads")
    words = [word for word in TINY if not word.startswith((*changed, "sampler.nfe"))]
    more = ["autoencoder.training.steps=200", "autoencoder.batch_size=2", "condition=label", "sampler.nfe=10"]
    return runs, finish(runs, *words, *more, "trainer.progress=false")["cell"]


@pytest.fixture
def call(
    cell: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(CONF)
    for number, pixels in enumerate(Digits().load("test").x[:2].numpy()[:, 0]):
        Image.fromarray(pixels).save(f"{number}.png")
    half = np.zeros((8, 8), np.uint8)
    half[:, 4:] = 255
    Image.fromarray(half).save("half.png")

    def run(out: str, *words: str) -> tuple[str, np.ndarray]:
        runs, name = cell
        capsys.readouterr()
        assert commands.main(["sample", name, "--runs", str(runs), "--device", "cpu", "--out", out, *words]) == 0
        return capsys.readouterr().out, np.load(f"{out}/samples.npz")["arr_0"][..., 0].astype(int)

    return run


def given(*numbers: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f"{number}.png")) for number in numbers]).astype(int)


def test_samples_are_decoded_in_batches_and_guided(call: Call, cell: tuple[Path, str]) -> None:
    said, samples = call("plain", "-n", "7")
    assert "10 network calls" in said
    assert samples.shape == (7, 8, 8)
    # Sample i is one function of its number; batches of another size round otherwise at most.
    _, fewer = call("fewer", "-n", "3")
    assert np.abs(samples[:3] - fewer).max() <= 1
    said, guided = call("guided", "-n", "7", "--guidance", "cfg", "--label", "3")
    assert "20 network calls" in said
    assert np.abs(guided - samples).mean() > 2
    settings = json.loads(Path("guided/settings.json").read_text())
    assert (settings["guidance"], settings["nfe"], settings["labels"]) == ("cfg", 20, [3])


def test_what_is_not_painted_anew_stays_to_the_last_bit(call: Call) -> None:
    words = ["--inpaint", "0.png", "1.png", "--mask", "half.png", "-n", "5"]
    _, samples = call("inpainted", *words)
    _, free = call("free", "-n", "5")
    known = given(0, 1, 0, 1, 0)
    assert np.array_equal(samples[:, :, :4], known[:, :, :4])
    assert not np.array_equal(samples[:, :, 4:], known[:, :, 4:])
    # The network has seen the known half, in latents.
    assert not np.array_equal(samples[:, :, 4:], free[:, :, 4:])
    assert not np.array_equal(samples[0, :, 4:], samples[2, :, 4:])


def test_the_less_strength_the_nearer_to_the_picture_that_it_starts_from(call: Call) -> None:
    distances = []
    for strength in ("0.1", "0.5", "1"):
        said, samples = call(strength, "--from", "0.png", "--strength", strength, "-n", "8")
        assert f"{max(1, round(10 * float(strength)))} network calls" in said
        distances.append(float(np.abs(samples - given(*[0] * 8)).mean()))
    assert distances == sorted(distances)
    assert distances[0] < 0.7 * distances[-1]
