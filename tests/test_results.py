"""Results in Python: a tidy table, any finished model, its samples, and what each option of a choice is worth."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from diffsweep import commands, results
from diffsweep.diffusion import Condition
from diffsweep.entry import sweep_end
from diffsweep.report.factors import factors
from diffsweep.sweep.plan.plan import Plan, Task
from diffsweep.sweep.store.record import Cell, Fit
from diffsweep.sweep.store.result import Result
from finished_runs import DIGITS, finish
from processes import loaded

BLOCKS = 10


def cell(runs: Path, name: str, value: float | None, **fields: Any) -> Cell:
    """A finished cell whose number varies from block to block."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.01, BLOCKS)
    numbers: dict[str, Any] = {"fd_digits": value}
    if value is not None:
        numbers |= {"fd_digits_low": value - 0.1, "fd_digits_high": value + 0.1}
        numbers["fd_digits_jackknife"] = " ".join(f"{value + one:.9g}" for one in noise)
    record = Fit(runs / "fits" / fields.get("fit", "f0")).cell(name)
    common = {"cell": name, "fit": "f0", "sampler": "ddim", "schedule": "cosine", "dataset": "digits", "nfe": 20}
    common |= {"metric": "fd_digits", "samples": 500, "sample_seed": 0, "overrides": "", "grid": "samples.png"}
    record.write_result(Result.parse(common | numbers | fields))
    return record


def without(record: Cell) -> np.ndarray:
    result = record.result()
    assert result is not None
    return np.array(result.measure("fd_digits").jackknife)


# --- the table ------------------------------------------------------------------------------------------------------


def test_columns_have_the_types_of_what_they_hold(tmp_path: Path) -> None:
    cell(tmp_path, "a", 0.5, created="2026-11-21T18:00:00Z", git_dirty=False, seed=3, bits=8)
    cell(tmp_path, "b", None, sampler="heun", nfe=19, created="2026-11-22T18:00:00Z", git_dirty=True, bits=None)
    df = results.load(tmp_path)
    assert list(df.cell) == ["a", "b"]
    kinds = {name: str(df[name].dtype) for name in df}
    assert kinds["nfe"] == "int64"
    assert kinds["fd_digits"] == "float64"
    assert math.isnan(df.fd_digits[1])
    assert (kinds["bits"], kinds["seed"], kinds["git_dirty"]) == ("Int64", "Int64", "bool")
    assert (int(df.bits[0]), df.bits.isna().tolist()) == (8, [False, True])
    assert {kinds[name] for name in ("sampler", "schedule", "dataset", "metric")} == {"category"}
    assert (df.created[1] - df.created[0]).total_seconds() == 86400
    assert str(df.created.dt.tz) == "UTC"
    assert not [name for name in df if str(name).endswith("_jackknife")]
    for folder, name in zip(df.folder, df.cell, strict=True):
        assert Path(folder).is_absolute()
        assert Cell(Path(folder)).result().cell == name  # type: ignore[union-attr]
    assert df.groupby("sampler", observed=True).nfe.mean().to_dict() == {"ddim": 20, "heun": 19}


def test_a_whole_number_too_large_for_a_column_is_kept(tmp_path: Path) -> None:
    cell(tmp_path, "a", 0.5, seed=2**80)
    assert results.load(tmp_path).seed[0] == 2**80


def test_filters_are_those_of_the_command(tmp_path: Path) -> None:
    for i, sampler in enumerate(["ddim", "heun", "ddpm"]):
        cell(tmp_path, f"c{i}", i / 2, sampler=sampler, sweep="monday" if i else "sunday")
    assert list(results.load(tmp_path, "sampler=ddim,ddpm", "fd_digits<0.7").cell) == ["c0"]
    assert list(results.load(tmp_path, "monday").cell) == ["c1", "c2"]
    with pytest.raises(ValueError, match="none of the 3 finished runs passes nfe>100"):
        results.load(tmp_path, "nfe>100")
    with pytest.raises(ValueError, match="no finished runs in"):
        results.load(tmp_path / "nowhere")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    cell(tmp_path, "a", 0.5)
    cell(tmp_path, "b", 0.5).result_file.write_text("{")
    with pytest.warns(UserWarning, match=r"cells/b/result\.json"):
        assert list(results.load(tmp_path).cell) == ["a"]


def test_the_module_loads_nothing_heavy() -> None:
    names, _ = loaded("import", "diffsweep.results")
    assert not names & {"torch", "pandas", "numpy", "hydra", "omegaconf"}


# --- one of them ----------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_name_beginning_row_or_rank(tmp_path: Path) -> None:
    cell(tmp_path, "abc1", 0.5, created="2026-01-01T00:00:00Z")
    cell(tmp_path, "abd2", 0.3, created="2026-01-02T00:00:00Z")
    cell(tmp_path, "abd", 0.9, created="2026-01-03T00:00:00Z")
    cell(tmp_path, "few", 0.1, created="2026-01-01T00:00:00Z", samples=10)
    df = results.load(tmp_path)

    def name(which: Any) -> str:
        return results.find(which, tmp_path).signature

    assert (name("abc"), name("abd"), name("f0")) == ("abc1", "abd", "f0")
    # The best of what was measured as the last one was: ten samples are another matter.
    assert (name("last"), name("best")) == ("abd", "abd2")
    assert name(df.iloc[0]) == results.find(df.iloc[0], "elsewhere").signature == df.cell[0]
    assert [name(row) for row in df.itertuples()] == list(df.cell)
    assert name({"fit": "f0", "cell": "abd2"}) == "abd2"
    number: Any = 7
    for which, said in (
        ("ab", "begins 3 names in .*: abc1, abd, abd2$"),
        ("", "'' is no cell or fit"),
        ("zz", "'zz' is no cell or fit"),
        (number, "7 is neither a signature nor a row"),
    ):
        with pytest.raises(ValueError, match=said):
            results.find(which, tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    runs = tmp_path_factory.mktemp("trained")
    return runs, finish(runs, *DIGITS, "evaluation.samples=20", "sampler=ddim")


def test_a_model_is_loaded_with_its_averaged_weights(trained: tuple[Path, dict[str, Any]]) -> None:
    runs, result = trained
    denoiser = results.load_fit(results.load(runs).iloc[0])
    saved = load_file(runs / "fits" / result["fit"] / "checkpoints" / "ema.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in denoiser.backbone.state_dict().items())
    assert results.load_fit(result["fit"], runs)(
        torch.zeros(3, 1, 8, 8), denoiser.schedule.level(0.5), Condition.of(label=torch.tensor([1, 2, 3]))
    ).shape == (3, 1, 8, 8)


def test_samples_are_numbered(trained: tuple[Path, dict[str, Any]]) -> None:
    runs, result = trained
    many = results.sample(result["cell"], 7, runs=runs, seed=5, nfe=4, device="cpu")
    assert (many.shape, many.dtype) == ((7, 1, 8, 8), torch.uint8)
    assert torch.equal(results.sample("last", 3, runs=runs, seed=5, nfe=4, device="cpu"), many[:3])
    assert not torch.equal(results.sample("last", 3, runs=runs, seed=6, nfe=4, device="cpu"), many[:3])


def test_another_sampler_needs_no_folder_of_a_project(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(results.sample("last", 3, runs=trained[0], sampler="heun")) == 3


# --- what a choice is worth -----------------------------------------------------------------------------------------


def test_one_pair_has_the_interval_of_its_paired_samples(tmp_path: Path) -> None:
    a, b = cell(tmp_path, "a", 0.5), cell(tmp_path, "b", 0.7, sampler="heun")
    best, other = results.compare(results.load(tmp_path)).to_dict("records")
    gaps = without(b) - without(a)
    error = math.sqrt((BLOCKS - 1) / BLOCKS * float(((gaps - gaps.mean()) ** 2).sum()))
    reach = stats.t.ppf(0.975, BLOCKS - 1) * error
    assert (best["sampler"], best["difference"], best["pairs"]) == ("ddim", 0, 0)
    assert (other["sampler"], other["pairs"], other["wins"], other["losses"]) == ("heun", 1, 0, 1)
    assert (other["difference"], other["low"], other["high"]) == pytest.approx((0.2, 0.2 - reach, 0.2 + reach))


def test_cells_pair_only_if_nothing_else_differs(tmp_path: Path) -> None:
    """Heun is better by 0.1 wherever both are; ddim alone was tried where all are good."""
    for i, schedule in enumerate(["cosine", "linear", "karras"]):
        cell(tmp_path, f"d{i}", 0.6 + i, schedule=schedule, fit=f"f{i}")
        cell(tmp_path, f"h{i}", 0.5 + i, schedule=schedule, fit=f"f{i}", sampler="heun")
    cell(tmp_path, "alone", 0.01, schedule="rectified", fit="f9")
    cell(tmp_path, "lost", None, schedule="rectified", fit="f9", sampler="heun")
    df = results.load(tmp_path)
    best, other = results.compare(df, by="sampler", metric="fd_digits").to_dict("records")
    assert (best["sampler"], other["sampler"]) == ("heun", "ddim")
    assert (other["difference"], other["pairs"], other["wins"], other["losses"]) == (pytest.approx(0.1), 3, 0, 3)
    assert other["low"] < 0.1 < other["high"]
    by_schedule = results.compare(df, by="schedule")
    assert list(by_schedule.schedule) == ["rectified", "cosine", "linear", "karras"]
    assert list(by_schedule.pairs) == [0, 1, 1, 1]


def test_images_that_were_made_elsewhere_are_no_option(tmp_path: Path) -> None:
    cell(tmp_path, "a", 0.5)
    cell(tmp_path, "b", 0.7, sampler="heun")
    cell(tmp_path, "c", 0.1, fit="theirs", sampler=None, schedule=None, images="theirs", overrides="images=theirs")
    assert list(results.compare(results.load(tmp_path)).sampler) == ["ddim", "heun"]


def test_a_setting_that_was_varied_is_a_choice_too(tmp_path: Path) -> None:
    for nfe, value in ((5, 2.0), (10, 1.0), (20, 0.8)):
        cell(tmp_path, f"n{nfe}", value, overrides=f"sampler.nfe={nfe}", nfe=nfe)
    table = results.compare(results.load(tmp_path), by="sampler.nfe")
    assert list(table["sampler.nfe"]) == ["20", "10", "5"]
    assert list(table.difference) == pytest.approx([0, 0.2, 1.2])


def test_a_default_is_one_choice_whether_it_was_written_out_or_not(tmp_path: Path) -> None:
    """A sweep over nfe finds the cell of nfe=20 done, by a command that did not name it."""
    for sampler, gap in (("ddim", 0.0), ("heun", 0.1)):
        for nfe, value in ((10, 1.0), (20, 0.8)):
            said = "" if (sampler, nfe) == ("ddim", 20) else f"sampler={sampler} sampler.nfe={nfe}"
            made = cell(tmp_path, f"{sampler}{nfe}", value + gap, sampler=sampler, nfe=nfe, overrides=said)
            made.write_config({"sampler": {"nfe": nfe}, "paths": {"runs": sampler}})
    df = results.load(tmp_path)
    assert list(results.compare(df, by="sampler.nfe")["sampler.nfe"]) == ["20", "10"]
    assert list(results.compare(df, by="sampler.nfe").pairs) == [0, 2]
    assert list(results.compare(df, by="sampler").pairs) == [0, 2]
    page = tmp_path / "page.html"
    assert commands.main(["report", "fd_digits<5", "--runs", str(tmp_path), "--out", str(page)]) == 0
    told = re.findall(r'"factor sampler\.nfe":"(.*?)"', page.read_text(encoding="utf-8"))
    assert sorted(told) == ["10", "10", "20", "20"]


def test_a_table_shows_the_default_of_what_only_other_cells_were_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, steps in enumerate((200, 300)):
        said = f"training.steps={steps}" if i else ""
        config = {"training": {"steps": steps}}
        cell(tmp_path, f"c{i}", 0.5 + i, fit=f"f{i}", overrides=said).write_config(config)
    assert commands.main(["results", "--runs", str(tmp_path)]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line[:1] in {"#", "1", "2"}]
    place = table[-3].index("training.steps")
    assert [row[place] for row in table[-2:]] == ["200", "300"]


def test_a_sweep_tells_its_cells_by_its_own_words_whoever_made_them(tmp_path: Path) -> None:
    cell(tmp_path, "a", 0.5, overrides="")
    cell(tmp_path, "b", 0.7, overrides="sampler.nfe=10", nfe=10)
    tasks = [
        Task(i, (f"sampler.nfe={nfe}",), "f0", name, "c", {}) for i, (name, nfe) in enumerate((("a", 20), ("b", 10)))
    ]
    plan = Plan(tmp_path / "sweeps" / "s", tmp_path, tasks=tuple(tasks), parts={"c": {}})
    about = sweep_end.comparison(plan.folder, tmp_path, plan)
    assert factors(about.results) == {"sampler.nfe": ["20", "10"]}


def test_options_that_are_spelled_differently_are_one_if_their_configs_agree(tmp_path: Path) -> None:
    spacing = {"karras": {"_target_": "Karras", "rho": 7}, "logsnr": {"_target_": "LogSNR"}}

    def add(name: str, value: float, overrides: str, *, chosen: str, rate: float) -> None:
        made = cell(tmp_path, name, value, overrides=overrides, fit=f"f{rate}")
        made.write_config({"sampler": {"spacing": spacing[chosen]}, "optimizer": {"lr": rate}})

    add("a", 0.5, "optimizer.lr=1e-3", chosen="karras", rate=0.001)
    add("b", 0.6, "sampler/spacing=karras optimizer.lr=0.01", chosen="karras", rate=0.01)
    add("c", 0.7, "sampler/spacing=logsnr optimizer.lr=0.001", chosen="logsnr", rate=0.001)
    add("d", 0.8, "sampler/spacing=logsnr optimizer.lr=0.01", chosen="logsnr", rate=0.01)
    table = results.compare(results.load(tmp_path), by="sampler/spacing")
    assert list(table["sampler/spacing"]) == ["karras", "logsnr"]
    assert list(table.pairs) == [0, 2]


def test_defaults_that_differ_by_option_keep_no_cells_apart(tmp_path: Path) -> None:
    """Two samplers as they are, and another sweep over what is a default of one of them."""

    def add(name: str, value: float, overrides: str = "", *, sampler: str, spacing: str) -> None:
        made = cell(tmp_path, name, value, sampler=sampler, overrides=overrides)
        made.write_config({"sampler": {"spacing": {"_target_": spacing}}})

    add("a", 0.5, sampler="ddim", spacing="time")
    add("b", 0.7, sampler="heun", spacing="karras")
    add("c", 0.4, "sampler/spacing=karras", sampler="unipc", spacing="karras")
    add("d", 0.6, "sampler/spacing=time", sampler="unipc", spacing="time")
    table = results.compare(results.load(tmp_path, "sampler=ddim,heun,unipc"), by="sampler")
    assert list(table.sampler) == ["ddim", "heun"]
    assert list(table.difference) == pytest.approx([0, 0.2])


def test_an_edited_default_is_a_choice_though_nobody_named_it(tmp_path: Path) -> None:
    for name, value, steps in (("few", 0.9, 300), ("many", 0.5, 1500)):
        cell(tmp_path, name, value, fit=name).write_config({"training": {"steps": steps}, "seed": 0})
    best, other = results.compare(results.load(tmp_path), by="training.steps").to_dict("records")
    assert (best["training.steps"], other["training.steps"], other["pairs"]) == ("1500", "300", 1)


def test_samplers_are_paired_on_one_training_only(tmp_path: Path) -> None:
    """Both were told nothing else, but a default was edited in between."""
    cell(tmp_path, "a", 0.5, fit="before")
    cell(tmp_path, "b", 0.7, fit="after", sampler="heun")
    cell(tmp_path, "c", 0.9, fit="after")
    best, other = results.compare(results.load(tmp_path)).to_dict("records")
    assert (best["sampler"], other["pairs"], other["difference"]) == ("heun", 1, pytest.approx(0.2))


def test_several_choices_together_are_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        for sampler, schedule, value in (
            ("ddim", "cosine", 0.5),
            ("ddim", "linear", 0.9),
            ("heun", "cosine", 0.8),
            ("heun", "linear", 0.6),
        ):
            cell(
                tmp_path,
                f"{sampler}{schedule}{seed}",
                value + seed,
                sampler=sampler,
                schedule=schedule,
                fit=f"{schedule}{seed}",
                seed=seed,
                overrides=f"seed={seed}",
            )
    table = results.compare(results.load(tmp_path), by=["sampler", "schedule"])
    assert list(zip(table.sampler, table.schedule, strict=True)) == [
        ("ddim", "cosine"),
        ("heun", "linear"),
        ("heun", "cosine"),
        ("ddim", "linear"),
    ]
    assert list(table.difference) == pytest.approx([0, 0.1, 0.3, 0.4])
    assert (list(table.pairs), list(table.seeds)) == ([0, 2, 2, 2], [0, 2, 2, 2])
    alone = results.compare(results.load(tmp_path, "seed=0"), by=["sampler", "schedule"])
    assert list(alone.seeds) == [0, 1, 1, 1]
    # What two seeds differ in is what chance does: far more than what samples do.
    assert (table.high - table.low)[1:].min() > 0


def test_more_is_better_of_some_numbers(tmp_path: Path) -> None:
    for name, sampler, value in (("a", "ddim", 0.9), ("b", "heun", 0.7)):
        fields = {"precision_digits": value, "precision_digits_low": value - 0.1, "precision_digits_high": value + 0.1}
        cell(tmp_path, name, value, sampler=sampler, **fields)
    best, other = results.compare(results.load(tmp_path), metric="precision_digits").to_dict("records")
    assert (best["sampler"], other["difference"], other["losses"]) == ("ddim", pytest.approx(-0.2), 1)
    assert math.isnan(other["low"])


@pytest.mark.parametrize(
    ("fields", "arguments", "said"),
    [
        ({"sampler": "heun", "samples": 50}, {}, "these cells differ in samples"),
        ({"sampler": "heun", "metric": "fid", "fid": 3.0}, {}, "fd_digits, fid: say metric=NAME"),
        ({"sampler": "heun"}, {"by": "schedule"}, "do not differ in schedule, but in sampler"),
        ({"sampler": "heun"}, {"by": ["sampler", "nfe"]}, "do not differ in nfe, but in sampler"),
        ({"sampler": "heun"}, {"by": []}, "name a choice"),
        ({"sampler": "heun"}, {"metric": "fib"}, "no result has a number fib"),
        ({"sampler": "heun", "schedule": "linear", "fit": "f1"}, {}, "sampler only: they differ in schedule as well"),
        ({"sampler": "heun", "fit": "f1"}, {}, "sampler only: they are of different trainings"),
        ({"sampler": "heun", "fd_digits": None}, {}, "sampler only: the others have no fd_digits"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, fields: dict[str, Any], arguments: dict[str, Any], said: str
) -> None:
    cell(tmp_path, "a", 0.5)
    cell(tmp_path, "b", 0.7, **fields)
    with pytest.raises(ValueError, match=said):
        results.compare(results.load(tmp_path), **arguments)


def test_tables_that_name_no_cells_are_refused(tmp_path: Path) -> None:
    cell(tmp_path, "a", 0.5)
    gone = cell(tmp_path, "b", 0.7, sampler="heun")
    df = results.load(tmp_path)
    with pytest.raises(ValueError, match="no cells to compare"):
        results.compare(df.iloc[:0])
    with pytest.raises(ValueError, match=r"without the column folder of results\.load"):
        results.compare(df.drop(columns="folder"))
    gone.result_file.unlink()
    with pytest.raises(ValueError, match=r"cells/b has no result any more"):
        results.compare(df)


def test_best_is_of_the_largest_group_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest cell was measured otherwise: that says nothing about which cell is the best."""
    cell(tmp_path, "a", 0.5, created="2026-01-01")
    cell(tmp_path, "b", 0.2, created="2026-01-02")
    cell(tmp_path, "c", None, created="2026-01-03", fd_digits_reason="3 of 500 samples are not finite")
    cell(tmp_path, "quick", 90.0, samples=50, created="2026-01-04")
    assert results.find("best", tmp_path).signature == "b"
    said = capsys.readouterr().err
    assert said == (
        "best: cell b (sampler=ddim schedule=cosine dataset=digits), fd_digits 0.2000, the best of 2 cells with 500 "
        "samples against digits; 1 cell measured otherwise left out (`diffsweep results` shows all)\n"
    )
    assert results.find("last", tmp_path).signature == "quick"
    assert capsys.readouterr().err == (
        "last: cell quick (sampler=ddim schedule=cosine dataset=digits), finished 2026-01-04\n"
    )
    only = tmp_path / "lost"
    cell(only, "c", None)
    with pytest.raises(ValueError, match=r"no cell in .*lost has a finite main number: name one"):
        results.find("best", only)
