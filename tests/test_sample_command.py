"""`diffsweep sample`: the very images of an evaluation, with any settings, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffsweep import commands
from diffsweep.data.modality import IMAGES
from diffsweep.evaluation.images import read_images
from diffsweep.evaluation.pictures import grid
from diffsweep.random_streams import generator
from diffsweep.runs import resample
from diffsweep.sweep.store.record import Fit
from diffsweep.sweep.store.result import Result
from finished_runs import CONF, DIGITS, finish

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of digits that was evaluated in several ways, one of points."""
    runs = tmp_path_factory.mktemp("project") / "runs"
    for settings in (
        ["sampler=ddim"],
        ["sampler=ddim", "evaluation.seed=7"],
        ["sampler=heun"],
        ["sampler=ddpm", "guidance=cfg", "guidance.scale=3"],
    ):
        finish(runs, *DIGITS, *settings)
    points = ["dataset=moons", "backbone=mlp", "backbone.width=16", "backbone.depth=1", "training.steps=20"]
    finish(runs, *points, "training.warmup=5", "evaluation.samples=64", "trainer.progress=false")
    return runs


@pytest.fixture(scope="module")
def cells(runs: Path) -> dict[str, dict[str, Any]]:
    results = [json.loads(path.read_text()) for path in runs.glob("fits/*/cells/*/result.json")]
    return {f"{one['dataset']} {one['sampler']} {one['sample_seed']}": one for one in results}


@pytest.fixture
def call(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(CONF)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = commands.main(["sample", "--runs", str(runs), "--device", "cpu", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def scored(runs: Path, result: dict[str, Any]) -> np.ndarray:
    """The picture that the evaluation left."""
    return picture(runs / "fits" / result["fit"] / "cells" / result["cell"] / result["grid"])


@pytest.mark.parametrize(
    ("base", "words", "same"),
    [
        ("digits ddim 0", [], "digits ddim 0"),
        ("digits ddim 0", ["--seed", "7"], "digits ddim 7"),
        ("digits ddim 7", ["--sampler", "heun", "--seed", "0"], "digits heun 0"),
        (
            "digits heun 0",
            ["--sampler", "ddpm", "--guidance", "cfg", "--set", "guidance.scale=3", "--nfe", "6"],
            "digits ddpm 0",
        ),
    ],
)
def test_the_images_are_those_of_an_evaluation_bit_for_bit(
    call: Call, runs: Path, cells: dict[str, Any], base: str, words: list[str], same: str
) -> None:
    code, _, err = call(cells[base]["cell"], *words, "-n", "120", "--out", "out")
    assert code == 0
    # Heun's three steps are few, and that is said.
    assert [line for line in err.splitlines() if "is too few for this sampler" not in line] == []
    assert np.array_equal(picture(Path("out/grid.png")), scored(runs, cells[same]))
    said = json.loads(Path("out/settings.json").read_text())
    assert (said["nfe"], said["nfe_asked"]) == (cells[same]["nfe"], cells[same]["nfe_asked"])
    assert (said["sampler"], said["guidance"]) == (cells[same]["sampler"], cells[same]["guidance"])
    assert said["fit"] == cells[same]["fit"]


def test_a_frozen_setting_can_be_changed_without_naming_the_option(call: Call, cells: dict[str, Any]) -> None:
    cell = cells["digits ddpm 0"]["cell"]
    call(cell, "-n", "20", "--set", "guidance.scale=1", "--out", "a")
    call(cell, "-n", "20", "--guidance", "cfg", "--set", "guidance.scale=1", "--out", "b")
    call(cell, "-n", "20", "--out", "c")
    assert np.array_equal(picture(Path("a/grid.png")), picture(Path("b/grid.png")))
    assert not np.array_equal(picture(Path("a/grid.png")), picture(Path("c/grid.png")))


def test_the_files_are_numbered_and_agree(call: Call, cells: dict[str, Any]) -> None:
    fit = cells["digits ddim 0"]["fit"]
    code, out, _ = call(fit[:8], "-n", "12", "--nfe", "4", "--gif", "--out", "deep/out")
    assert code == 0
    names = {path.name for path in Path("deep/out").iterdir()}
    numbered = {f"{number:06d}.png" for number in range(12)}
    assert names == numbered | {"grid.png", "samples.npz", "settings.json", "trajectory.gif"}
    assert [path.name for path in Path("deep").iterdir()] == ["out"]
    images = read_images("deep/out/samples.npz").x.permute(0, 2, 3, 1).numpy()
    assert images.shape == (12, 8, 8, 1)
    assert np.load("deep/out/samples.npz")["arr_0"].dtype == np.uint8
    assert read_images("deep/out/samples.npz").labels.tolist() == [*range(10), 0, 1]
    for number, image in enumerate(images):
        assert np.array_equal(picture(Path(f"deep/out/{number:06d}.png")), image[:, :, 0])
    for line in ("deep/out/grid.png", "deep/out/samples.npz", "deep/out/trajectory.gif"):
        assert line in out


def test_an_animation_goes_from_noise_to_the_samples(call: Call, cells: dict[str, Any]) -> None:
    call(cells["digits ddim 0"]["cell"], "-n", "9", "--nfe", "5", "--gif", "--out", "out")
    with Image.open("out/trajectory.gif") as gif:
        assert gif.n_frames == 6  # type: ignore[attr-defined]
        frames = []
        for index in range(6):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("L")).astype(int))
    width = (frames[0].shape[1] - 8) // 2

    def small(path: str) -> np.ndarray:
        return np.asarray(Image.open(path).resize((width, width), Image.Resampling.NEAREST))

    noise = torch.stack([torch.randn(1, 8, 8, generator=generator(0, "image", number)) for number in range(9)])
    grid(IMAGES.decode(noise), Path("noise.png"))
    assert np.array_equal(frames[0][:, :width], small("noise.png"))
    assert np.array_equal(frames[-1][:, :width], small("out/grid.png"))
    assert np.array_equal(frames[-1][:, -width:], small("out/grid.png"))
    # Of a deterministic sampler the last aim is where it lands.
    assert np.array_equal(frames[-2][:, -width:], small("out/grid.png"))
    apart = [np.abs(frame[:, :width] - frames[-1][:, :width]).mean() for frame in frames]
    assert apart == sorted(apart, reverse=True)


def test_long_trajectories_are_shown_in_few_frames(call: Call, cells: dict[str, Any]) -> None:
    call(cells["digits ddim 0"]["cell"], "-n", "2", "--nfe", "100", "--gif", "--out", "out")
    with Image.open("out/trajectory.gif") as gif:
        assert 50 <= gif.n_frames <= resample.FRAMES  # type: ignore[attr-defined]


def test_points_come_as_an_array_and_a_scatter_plot(call: Call, runs: Path, cells: dict[str, Any]) -> None:
    result = cells["moons recommended 0"]
    code, out, _ = call(result["cell"], "--nfe", str(result["nfe_asked"]), "--gif", "--out", "out")
    assert code == 0
    assert {path.name for path in Path("out").iterdir()} == {
        "grid.png",
        "samples.npy",
        "settings.json",
        "trajectory.gif",
    }
    points = np.load("out/samples.npy", allow_pickle=False)
    assert (points.shape, points.dtype) == ((64, 2), np.float32)
    assert np.array_equal(picture(Path("out/grid.png")), scored(runs, result))
    assert "evaluate" not in out


def test_best_and_last_are_found_and_a_folder_is_named_after_what_it_holds(
    call: Call, runs: Path, cells: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = [one for one in cells.values() if one["dataset"] == "digits"]
    best = min(digits, key=lambda one: one[one["metric"]])
    every = [{**one, "created": one["dataset"][0]} for one in cells.values() if one["dataset"] == "moons"]
    every += [{**one, "created": "e"} for one in digits]
    monkeypatch.setattr("diffsweep.sweep.store.query.results", lambda runs, *_: list(map(Result.parse, every)))
    assert call("last", "-n", "1")[0] == 0
    monkeypatch.setattr("diffsweep.sweep.store.query.results", lambda runs, *_: list(map(Result.parse, digits)))
    code, out, _ = call("best", "-n", "1", "--sampler", "heun", "--seed", "3", "--guidance", "none")
    assert code == 0
    moons = cells["moons recommended 0"]
    assert {path.name for path in Path("samples").iterdir()} == {
        f"{moons['cell']}_recommended_nfe{moons['nfe_asked']}_seed0",
        f"{best['cell']}_heun_nfe6_seed3",
    }
    assert f"samples/{best['cell']}_heun_nfe6_seed3/grid.png" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "'nosuch' is no cell or fit"),
        (["CELL", "--sampler", "huen"], "heun"),
        (["CELL", "--set", "sampler.etta=1"], "sampler.etta is no setting of this run"),
        (["CELL", "--set", "training.steps=1"], "sets nothing of sampling"),
        (["CELL", "--set", "sampler/spacing=karras"], "--sampler NAME"),
        (["CELL", "--nfe", "0"], "sampler.nfe=0"),
        (["CELL", "-n", "0"], "0 samples cannot be drawn"),
        (["CELL", "--device", "tpu"], "device tpu is none of auto"),
        (["CELL", "--guidance", "autoguidance"], "guidance.weak"),
        (["CELL", "--config-dir", "nowhere"], "config_dir=nowhere is no folder"),
        (["CELL", "--out", "file/below"], "file is a file"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_nothing(
    call: Call, cells: dict[str, Any], words: list[str], said: str
) -> None:
    name, *rest = words
    Path("file").touch()
    out_option = [] if "--out" in rest else ["--out", "out"]
    code, out, err = call(name.replace("CELL", cells["digits ddim 0"]["cell"]), *rest, *out_option)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_what_somebody_else_put_there_is_left_alone(call: Call, cells: dict[str, Any]) -> None:
    cell = cells["digits ddim 0"]["cell"]
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    code, _, err = call(cell, "-n", "2", "--out", "out")
    assert code == 2
    assert "notes.txt lies there" in err
    assert [path.name for path in Path("out").iterdir()] == ["notes.txt"]


def test_what_was_put_there_meanwhile_is_left_alone(tmp_path: Path) -> None:
    drawn = resample.FreshSamples(
        IMAGES, torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 0, 20, 1.0, torch.device("cpu"), "32-true", []
    )
    folder = tmp_path / "out"
    resample.write(drawn, folder, {})
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt lies there"):
        resample.write(drawn, folder, {})
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_ours_is_replaced_as_a_whole_and_only_by_a_whole_one(
    call: Call, cells: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = cells["digits ddim 0"]["cell"]
    Path("out").mkdir()
    assert call(cell, "-n", "5", "--out", "out")[0] == 0
    assert call(cell, "-n", "3", "--seed", "1", "--out", "out")[0] == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert "000002.png" in before
    assert "000003.png" not in before

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(resample.np, "savez", full)
    code, _, err = call(cell, "-n", "4", "--out", "out")
    assert (code, err) == (2, "diffsweep: no space left\n")
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    assert not [path for path in Path().iterdir() if path.name.startswith(".out")]


def test_images_of_others_and_unfinished_trainings_have_no_model(call: Call, runs: Path) -> None:
    fit = Fit(runs / "fits" / "outside")
    fit.write_done({"fit": "outside", "external": True})
    fit.cell("pictures").write_result(Result.parse({"cell": "pictures", "fit": "outside", "images": "theirs"}))
    Fit(runs / "fits" / "begun").folder.mkdir()
    assert "made elsewhere" in call("pictures")[2]
    assert "is not finished" in call("begun")[2]


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"sampler: {nfe: 6", b"\xff", b"sampler:\n  nfe: 6\n"])
def test_a_config_that_was_cut_or_altered_costs_one_line(
    call: Call, runs: Path, cells: dict[str, Any], content: bytes
) -> None:
    result = cells["moons recommended 0"]
    file = Fit(runs / "fits" / result["fit"]).cell(result["cell"]).config_file
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        code, out, err = call(result["cell"], "--out", "out")
    finally:
        file.write_bytes(before)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(rf"{re.escape(str(file))} (is not|cannot be read as) the config of a run", err)
