"""`diffsweep evaluate` of videos and sounds: the numbers of a run with these samples, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from clips_made import frames, gif_folder, wav_folder, write_wav
from diffsweep import commands
from diffsweep.data.examples import Dataset
from diffsweep.data.moving_digits import MovingDigits
from diffsweep.data.tones import Tones
from diffsweep.evaluation.features import Features
from diffsweep.runs.build import evaluation_settings, make_evaluation
from diffsweep.scoring.measure import measure
from diffsweep.scoring.sample_files import write_one

ROOT = Path(__file__).parent.parent
Call = Callable[..., tuple[int, str, str]]

VIDEOS = ["dataset.copies=1", "dataset.shape=[1,4,16,16]"]
SOUNDS = ["dataset.size=200"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = commands.main(list(map(str, words)))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def results() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in Path("runs").glob("fits/*/cells/*/result.json")]


def written(dataset: Dataset, x: Tensor, folder: Path) -> Path:
    folder.mkdir()
    for i, one in enumerate(x):
        write_one(dataset.modality, one, folder / str(i))
    return folder


def measured(dataset: Dataset, x: Tensor, *words: str) -> dict[str, Any]:
    """What a run writes for these very samples."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"dataset={dataset.name}", f"evaluation.samples={len(x)}", *words])
    evaluation = make_evaluation(cfg, dataset)
    features = Features.collect(evaluation.extractor.batches(x, 250), None, evaluation.outputs)
    return measure(
        dataset, evaluation, evaluation_settings(cfg), features, 0, balanced=False, saturated=None, show=False
    ).flat()


@pytest.mark.parametrize(
    ("dataset", "words", "numbers", "file"),
    [
        (
            MovingDigits((1, 4, 16, 16), copies=1),
            VIDEOS,
            ["fd_frames_moving_digits", "fd_differences_moving_digits"],
            "samples.gif",
        ),
        (Tones(size=200), SOUNDS, ["fd_mel", "kd_mel"], "samples.wav"),
    ],
    ids=["videos", "sounds"],
)
def test_files_have_the_numbers_of_a_run_with_these_samples(
    dataset: Dataset, words: list[str], numbers: list[str], file: str, run: Call, tmp_path: Path
) -> None:
    x = dataset.load("test").take(torch.arange(80)).x
    folder = written(dataset, x, tmp_path / "theirs")
    code, out, err = run("evaluate", folder, "--reference", dataset.name, *words)
    assert (code, err) == (0, "")
    assert "theirs" in out
    (result,) = results()
    # Files are looked at in an order of their own.
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    expected = measured(dataset, x[order], *words)
    for name in numbers:
        assert result[name] == pytest.approx(expected[name], rel=1e-5)
    assert (result["images"], result["samples"]) == ("theirs", 80)
    (cell,) = Path("runs").glob("fits/*/cells/*")
    assert (cell / "samples.png").is_file()
    assert (cell / file).is_file()
    code, _, err = run("evaluate", folder, "--reference", dataset.name, *words)
    assert (code, err) == (0, "already done\n")


def test_what_diffsweep_has_drawn_is_measured_without_its_sheets(run: Call, tmp_path: Path) -> None:
    dataset = MovingDigits((1, 4, 16, 16), copies=1)
    x = dataset.load("test").take(torch.arange(20)).x
    folder = written(dataset, x, tmp_path / "drawn")
    write_one(dataset.modality, x[:1].expand(2, -1, -1, -1, -1)[0].repeat(1, 1, 2, 2), folder / "grid")
    frames(0)[0].save(folder / "grid.png")
    (folder / "settings.json").write_text("{}")
    code, _, err = run("evaluate", folder, "--reference", "moving_digits", *VIDEOS)
    assert (code, err) == (0, "")
    assert results()[0]["samples"] == 20


def broken(folder: Path) -> Path:
    (gif_folder(folder) / "a" / "zero.gif").touch()
    return folder / "gifs"


@pytest.mark.parametrize(
    ("make", "words", "line"),
    [
        (gif_folder, ["moving_digits", *VIDEOS], "the videos of gifs are (1, 4, 8, 8), those of moving_digits (1, 4, "),
        (broken, ["moving_digits", *VIDEOS, "--size=16"], "1 of the 13 videos in gifs cannot be read: a/zero.gif ("),
        (gif_folder, ["moving_digits", "dataset.shape=[1,9,16,16]"], "12 of the 12 videos in gifs cannot be read: a/0"),
        (wav_folder, ["moving_digits"], "wavs holds no pictures"),
        (gif_folder, ["tones"], "gifs holds no sounds"),
        (gif_folder, ["moons"], "gifs holds no pictures: neither it nor its subfolders have a .png, .jpg"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    make: Callable[[Path], Path], words: list[str], line: str, run: Call, tmp_path: Path
) -> None:
    code, out, err = run("evaluate", make(tmp_path).name, "--reference", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert line in err
    assert not Path("runs/fits").exists()


def test_broken_files_are_left_out_when_that_is_said(run: Call, tmp_path: Path) -> None:
    words = ["moving_digits", *VIDEOS, "--size=16", "--corrupt=skip"]
    code, _, err = run("evaluate", broken(tmp_path).name, "--reference", *words)
    assert code == 0, err
    assert "1 file of gifs skipped as corrupt" in err
    assert results()[0]["samples"] == 12


@pytest.mark.parametrize("rate", [1000, 11025, 48000])
def test_sounds_of_any_rate_have_features_of_their_own(rate: int, run: Call, tmp_path: Path) -> None:
    """Without a choice of an extractor, and for sounds of a few windows only."""
    for i in range(40):
        write_wav(tmp_path / "wavs" / f"{i}.wav", 100 + 5 * i, rate, 300)
    words = [f"dataset.sample_rate={rate}", "dataset.length=300", "dataset.path=wavs", "extractor=auto"]
    code, _, err = run("evaluate", "wavs", "--reference", "audio", *words, "dataset.test_share=0.5")
    assert (code, err) == (0, "")
    assert results()[0]["metric"] == "fd_mel"
