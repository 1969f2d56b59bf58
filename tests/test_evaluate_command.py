"""`diffsweep evaluate` as a user calls it: anybody's images in the same tables, measured as a run's own samples are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor

from diffsweep import commands
from diffsweep.data.digits import Digits
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.images import Images
from diffsweep.report import leaderboard
from diffsweep.runs.build import evaluation_settings, make_evaluation
from diffsweep.runs.load_fit import finished
from diffsweep.scoring.measure import measure
from diffsweep.scoring.saturation import saturated_share
from diffsweep.sweep.store import garbage
from diffsweep.sweep.store.record import Fit
from diffsweep.sweep.store.result import Result
from finished_runs import finish

ROOT = Path(__file__).parent.parent
TEST = Digits().load("test").x
SAMPLES = 64

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(ROOT)

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = commands.main([*map(str, words), "--runs", str(tmp_path / "runs")])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def results(runs: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in runs.glob("fits/*/cells/*/result.json")]
    return sorted(found, key=lambda result: result["created"])


def one(runs: Path, name: str) -> Path:
    (found,) = runs.glob(f"fits/*/cells/*/{name}")
    return found


def cut(sheet: Path, count: int) -> Tensor:
    """The first digits of a run's picture of its samples, pixel for pixel: rows of ten or fewer, a pixel apart."""
    columns = int(np.ceil(np.sqrt(count)))
    x = np.array(Image.open(sheet))
    factor = x.shape[1] // (9 * columns - 1)
    x = x[::factor, ::factor]
    corners = [(9 * (i // columns), 9 * (i % columns)) for i in range(count)]
    return torch.from_numpy(np.stack([x[top : top + 8, left : left + 8] for top, left in corners])[:, None])


def pictures(folder: Path, x: Tensor) -> Path:
    folder.mkdir()
    for i, one in enumerate(x):
        Image.fromarray(one.squeeze(0).numpy()).save(folder / f"{i}.png")
    return folder


def archive(path: Path, x: Tensor) -> Path:
    np.savez(path, x.permute(0, 2, 3, 1).numpy())
    return path


def measured(x: Tensor, cache: Path, *overrides: str, labels: Tensor | None = None) -> dict[str, Any]:
    """What a run writes for these very samples."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        asked = [f"evaluation.samples={len(x)}", f"paths.runs={cache}", *overrides]
        cfg = compose("config", overrides=["dataset=digits", *asked])
    evaluation = make_evaluation(cfg, Digits())
    features = Features.collect(evaluation.extractor.batches(x, 250), labels, evaluation.outputs)
    saturated, settings = saturated_share([x]), evaluation_settings(cfg)
    labelled = labels is not None
    return measure(
        Digits(), evaluation, settings, features, 0, balanced=labelled, saturated=saturated, show=False
    ).flat()


def test_pictures_and_archive_have_the_numbers_of_a_run_with_these_samples(run: Call, tmp_path: Path) -> None:
    folder, packed = pictures(tmp_path / "theirs", TEST[:200]), archive(tmp_path / "again.npz", TEST[:200])
    code, out, err = run("evaluate", folder, "--reference", "digits", "metric=[frechet,kernel]")
    assert (code, err) == (0, "")
    assert "theirs" in out
    assert "diffsweep results dataset=digits" in out
    code, _, err = run("evaluate", packed, "--reference", "digits", "metric=[frechet,kernel]")
    # Equal pixels are one cell, whatever they were packed in.
    assert (code, err) == (0, "already done as theirs; --force records it anew\n")
    assert run("evaluate", packed, "--reference", "digits", "metric=[frechet,kernel]", "--force")[0] == 0
    (result,) = results(tmp_path / "runs")
    assert result["images"] == "again"
    # The samples of a run are numbered, files are not: these are looked at in an order of their own.
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    expected = measured(TEST[:200][order], tmp_path / "cache", "metric=[frechet,kernel]")
    for key, value in expected.items():
        if key.endswith("_jackknife"):
            blocks = [[float(word) for word in one[key].split()] for one in (result, expected)]
            assert blocks[0] == pytest.approx(blocks[1], rel=1e-5), key
        else:
            assert result[key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), key
    in_order = measured(TEST[:200], tmp_path / "cache", "metric=[frechet,kernel]")
    for name in ("fd_digits", "kd_digits"):
        assert result[name] == pytest.approx(in_order[name], rel=1e-6)
    assert (result["samples"], result["bits"], result["reference_split"]) == (200, 8, "train")
    assert all(result[key] is None for key in ("sampler", "diffuser", "nfe", "seed", "sample_seed", "fit_steps"))


@pytest.mark.slow
def test_it_stands_in_the_table_of_runs_with_as_many_samples_and_in_another_otherwise(
    run: Call, tmp_path: Path
) -> None:
    tiny = ["backbone.width=8", "training.steps=5", "training.warmup=1", f"evaluation.samples={SAMPLES}"]
    finish(tmp_path / "runs", "dataset=digits", *tiny, "trainer.threads=1")
    (own,) = results(tmp_path / "runs")
    drawn = archive(tmp_path / "drawn.npz", cut(one(tmp_path / "runs", "samples.png"), SAMPLES))
    assert run("evaluate", drawn, "--reference", "digits")[0] == 0
    same = next(result for result in results(tmp_path / "runs") if result.get("images") == "drawn")
    for key in ("fd_digits", "fd_digits_floor"):
        assert same[key] == pytest.approx(own[key], rel=1e-6)
    for key in ("metric", "samples", "reference_digest", "extractor_digest", "resize", "bits"):
        assert same[key] == own[key], key

    folder = pictures(tmp_path / "theirs", TEST[:100])
    code, _, err = run("evaluate", folder, "--reference", "digits")
    assert code == 0
    assert "careful: 100 samples" in err
    assert f"--samples {SAMPLES}" in err
    assert "2 tables" in run("results")[1]
    code, _, err = run("evaluate", folder, "--reference", "digits", "--samples", SAMPLES, "--name", "their-ddpm")
    assert (code, err) == (0, "")
    _, out, _ = run("results", f"samples={SAMPLES}")
    assert "tables" not in out
    rows = [line.split() for line in out.splitlines() if line[:2] in ("1 ", "2 ", "3 ")]
    # Real digits are better than a model of five steps.
    names = [row[1] for row in rows if row[1] != "run"]
    assert names[0] == "their-ddpm"
    assert set(names[1:]) == {"drawn", "-"}
    theirs = [result["fit"] for result in results(tmp_path / "runs") if result.get("images_source") == str(folder)]
    assert len(theirs) == 2
    assert len(set(theirs)) == 1, "the same images are one fit, however many of them are looked at"
    assert run("status")[0] == 0
    assert run("results", "images=their-ddpm", "--format", "csv")[0] == 0


@pytest.fixture
def recorded(run: Call, tmp_path: Path) -> Fit:
    assert run("evaluate", archive(tmp_path / "a.npz", TEST[:40]), "--reference", "digits")[0] == 0
    (folder,) = (tmp_path / "runs" / "fits").iterdir()
    return Fit(folder)


def test_its_fit_is_no_garbage_and_no_model(recorded: Fit, run: Call, tmp_path: Path) -> None:
    assert garbage.garbage(tmp_path / "runs", older_than=0) == []
    with pytest.raises(ValueError, match="no model"):
        finished(tmp_path / "runs", recorded.signature)
    with pytest.raises(ValueError, match="train one first"):
        finished(tmp_path / "runs", "absent")
    known = recorded.result() or {}
    assert (known["external"], known["steps"]) == (True, None)
    assert known["images_digest"] == Images(TEST[:40]).digest()


def test_what_the_evaluation_depends_on_makes_another_cell(recorded: Fit, run: Call, tmp_path: Path) -> None:
    packed = tmp_path / "a.npz"
    assert "already done" in run("evaluate", packed, "--reference", "digits", "evaluation.batch_size=7")[2]
    code, _, err = run("evaluate", packed, "--reference", "digits", "evaluation.reference=test")
    assert (code, err) == (0, "")
    one, two = results(tmp_path / "runs")
    assert one["fit"] == two["fit"]
    assert {one["reference_split"], two["reference_split"]} == {"train", "test"}
    assert {one["reference_samples"], two["reference_samples"]} == {1297, 500}
    assert one["fd_digits"] != two["fd_digits"]


def test_a_folder_of_real_images_is_a_reference_of_all_of_them_without_a_floor(run: Call, tmp_path: Path) -> None:
    real, given = pictures(tmp_path / "real", TEST[100:300]), archive(tmp_path / "given.npz", TEST[:100])
    code, out, err = run("evaluate", given, "--reference", real, "extractor=digits")
    assert (code, err) == (0, "")
    assert "None" not in out
    (result,) = results(tmp_path / "runs")
    assert (result["dataset"], result["reference_samples"], result["samples"]) == ("real", 200, 100)
    assert result["reference_split"] is result["floor_samples"] is result.get("fd_digits_floor")  # all null
    # With the same images on both sides nothing is far.
    assert run("evaluate", real, "--reference", real, "extractor=digits")[0] == 0
    found = {result["images"]: result["fd_digits"] for result in results(tmp_path / "runs")}
    assert 0 <= found["real"] < 1e-6 < found["given"]
    notes = {result["images"]: result["evaluation_note"] for result in results(tmp_path / "runs")}
    assert notes == {"given": None, "real": "these are the very images that they are compared with"}


def test_a_reference_smaller_than_the_features_is_said(run: Call, tmp_path: Path) -> None:
    few, given = archive(tmp_path / "few.npz", TEST[:30]), archive(tmp_path / "given.npz", TEST[30:130])
    assert run("evaluate", given, "--reference", few, "extractor=digits", "metric=[frechet]")[0] == 0
    assert results(tmp_path / "runs")[0]["evaluation_note"].startswith("30 real samples in 64 dimensions")


def test_labels_in_an_archive_give_numbers_by_class_as_a_run_has_them(run: Call, tmp_path: Path) -> None:
    labels = Digits().load("test").labels
    shown = TEST.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "told.npz", shown, labels.numpy())
    np.savez(tmp_path / "real.npz", shown[::-1], labels.numpy()[::-1])
    np.savez(tmp_path / "wrong.npz", shown, labels.numpy() + 1)
    asked = "metric=[frechet,accuracy,classwise]"
    assert run("evaluate", tmp_path / "told.npz", "--reference", "digits", asked)[0] == 0
    (result,) = results(tmp_path / "runs")
    expected = measured(TEST, tmp_path / "cache", asked, labels=labels)
    for name in ("accuracy_digits", "fd_digits_within", "fd_digits_class_3"):
        assert result[name] == pytest.approx(expected[name], rel=1e-6), name
        assert result[f"{name}_floor"] == pytest.approx(expected[f"{name}_floor"], rel=1e-6), name
    assert result["accuracy_digits"] > 0.95
    code, _, err = run("evaluate", tmp_path / "wrong.npz", "--reference", "digits")
    assert (code, err.count("\n")) == (2, 1)
    assert "labels of wrong go from 1 to 10, those of digits from 0 to 9" in err
    # Of real images from outside only those with labels tell what belongs together.
    for name, known in (("real.npz", True), ("plain.npz", False)):
        archive(tmp_path / "plain.npz", TEST)
        reference = ("--reference", tmp_path / name, "extractor=digits", "metric=[frechet,classwise]")
        assert run("evaluate", tmp_path / "told.npz", *reference)[0] == 0
        assert (results(tmp_path / "runs")[-1]["fd_digits_within"] is not None) is known


def test_classes_one_after_the_other_do_not_stand_in_blocks_of_their_own(run: Call, tmp_path: Path) -> None:
    examples = Digits().load("test")
    sorted_by_class = examples.x[examples.labels.argsort(stable=True)]
    for name, x in (("sorted", sorted_by_class), ("mixed", examples.x)):
        assert run("evaluate", archive(tmp_path / f"{name}.npz", x), "--reference", "digits", "--samples", 100)[0] == 0
    values = {result["images"]: result for result in results(tmp_path / "runs")}
    # The first hundred of the sorted ones show two digits, which is as far from all ten as can be.
    in_order = measured(sorted_by_class[:100], tmp_path / "cache")["fd_digits"]
    assert values["sorted"]["fd_digits"] < in_order / 4
    widths = {name: result["fd_digits_high"] - result["fd_digits_low"] for name, result in values.items()}
    assert widths["sorted"] < 2 * widths["mixed"]


def test_corrupt_files_are_refused_or_counted_in_the_result(run: Call, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "theirs", TEST[:30])
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:50])
    (folder / "readme.md").write_text("ours")
    code, out, err = run("evaluate", folder, "--reference", "digits")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "7.png" in err
    assert not (tmp_path / "runs").exists()
    code, _, err = run("evaluate", folder, "--reference", "digits", "--corrupt", "skip")
    assert code == 0
    assert err.splitlines() == [
        f"1 file of {folder} skipped as corrupt",
        f"1 file of {folder} ignored: no pictures by their names",
    ]
    (result,) = results(tmp_path / "runs")
    assert (result["skipped_files"], result["samples"]) == (1, 29)


def test_resizing_is_recorded_and_told_in_the_table(run: Call, tmp_path: Path) -> None:
    large = TEST[:40].repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    folder = pictures(tmp_path / "large", large)
    code, _, err = run("evaluate", folder, "--reference", "digits")
    assert code == 2
    assert all(word in err for word in ("(1, 32, 32)", "(1, 8, 8)", "--size 8"))
    assert run("evaluate", folder, "--reference", "digits", "--size", 8)[0] == 0
    (result,) = results(tmp_path / "runs")
    assert "bicubic" in result["images_resize"]
    assert result["overrides"] == "images=large images.size=8"


def test_grey_pictures_with_three_equal_channels_are_grey_and_coloured_ones_are_refused(
    run: Call, tmp_path: Path
) -> None:
    tripled = TEST[:40].expand(-1, 3, -1, -1).clone()
    assert run("evaluate", archive(tmp_path / "grey.npz", TEST[:40]), "--reference", "digits")[0] == 0
    assert "already done" in run("evaluate", archive(tmp_path / "rgb.npz", tripled), "--reference", "digits")[2]
    tripled[0, 0] = 255 - tripled[0, 0]
    code, _, err = run("evaluate", archive(tmp_path / "colour.npz", tripled), "--reference", "digits")
    assert code == 2
    assert all(word in err for word in ("(3, 8, 8)", "(1, 8, 8)", "grey and coloured"))


def test_folders_may_be_called_as_people_call_them(run: Call, tmp_path: Path) -> None:
    odd = tmp_path / "Zoë's runs, a=b (1)"
    odd.mkdir()
    folder = pictures(odd / "my samples, n=20", TEST[:20])
    code = commands.main(
        ["evaluate", str(folder), "--reference", "digits", "metric=[frechet]", "--name", "mine, ü", "--runs", str(odd)]
    )
    assert code == 0
    (result,) = results(odd)
    assert (result["images"], result["images_source"]) == ("mine, ü", str(folder))
    assert (odd / "cache").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reference", "nowhere"], "is no dataset, folder or file; datasets are"),
        (["--reference", "mixture"], "points"),
        (["--reference", "digits", "--samples", "900"], "there are 20 images"),
        (["--reference", "digits", "--samples", "1"], "needs 2"),
        (["--reference", "digits", "--name", "a=b"], "--name"),
        (["--reference", "digits", "dataset=digits"], "--reference"),
        (["--reference", "digits", "evaluation.samples=10"], "--samples"),
        (["--reference", "digits", "--smaples", "10"], "--smaples"),
        (["{single}", "{packed}", "--reference", "digits"], "give one folder or file"),
        (["img=1.png", "img=2.png", "--reference", "digits"], "img"),
        (["b.png", "--reference", "digits"], "b.png comes after"),
        (["--reference", "digits", "extractor=nothing"], "--help lists all"),
        (["--reference", "digits", "extractor=fashion_mnist"], "does not take images of shape (1, 8, 8)"),
        (["--reference", "digits", "evaluation.reference=both"], "train or test"),
        (["--reference", "digits", "evaluation.batch_size=none"], "batch_size"),
        (["--reference", "digits", "metric=[]"], "nothing to measure"),
        (["--reference", "{packed}", "extractor=digits", "evaluation.reference=test"], "no splits"),
        (["--reference", "{single}", "extractor=digits"], "single is one image only"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_mistakes_are_said_in_one_line_and_leave_nothing(
    run: Call, tmp_path: Path, words: list[str], said: str
) -> None:
    packed, single = archive(tmp_path / "a.npz", TEST[:20]), archive(tmp_path / "single.npz", TEST[:1])
    code, out, err = run("evaluate", packed, *(word.format(packed=packed, single=single) for word in words))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err
    assert not (tmp_path / "runs").exists()


def test_a_number_that_was_asked_for_and_cannot_be_given_says_why(tmp_path: Path) -> None:
    found = measured(TEST[:200], tmp_path, "metric=[frechet,infinity,accuracy,classwise]")
    assert found["fd_digits"] is not None
    assert (found["fd_digits_infinity"], found["accuracy_digits"], found["fd_digits_within"]) == (None, None, None)
    assert "it needs 256 samples in 64 dimensions, and there are 200" in found["fd_digits_infinity_reason"]
    assert "it is not known which class each sample was to show" in found["accuracy_digits_reason"]
    assert "it is not known which class each sample was to show" in found["fd_digits_within_reason"]
    result = Result.parse(found)
    assert set(result.measured) >= {"fd_digits", "fd_digits_infinity", "accuracy_digits", "fd_digits_within"}
    lines = leaderboard.absent_numbers([result, result])
    assert len(lines) == 3
    assert lines[0].startswith("no fd_digits_infinity of 2 cells: ")


def test_too_few_samples_for_a_metric_are_told_before_anything_is_measured(run: Call, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "theirs", TEST[:100])
    code, _, err = run("evaluate", folder, "--reference", "digits", "metric=[infinity]")
    assert code == 2
    assert "evaluation.samples=100 is too few for fd_digits_infinity, which needs 256" in err
    assert not (tmp_path / "runs").exists()
    code, out, err = run("evaluate", folder, "--reference", "digits", "metric=[frechet,infinity]")
    assert code == 0
    assert "careful: evaluation.samples=100 is too few for fd_digits_infinity" in err
    assert "it needs 256 samples" in out
