"""The report: what it says is what the numbers say, whatever the values are, and a real browser can use it."""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from browsers import headless, wait
from diffsweep import commands
from diffsweep.entry import sweep_end
from diffsweep.evaluation.pictures import grid, scatter
from diffsweep.report import export, page, statistics
from diffsweep.report.animation import clouds_motion, motion
from diffsweep.report.bibliography import bibtex, entries
from diffsweep.report.comparison import Comparison
from diffsweep.report.factors import effects, factors, shown_options
from diffsweep.report.failure import Failure
from diffsweep.report.format import with_error
from diffsweep.report.page import write
from diffsweep.report.page_data import page_data
from diffsweep.report.thumbnails import strip
from diffsweep.report.verdict import verdict
from diffsweep.sweep.plan.jobs import Job, LaunchRecord
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.store.record import Fit
from diffsweep.sweep.store.result import Measure, Result
from finished_runs import DIGITS, finish
from made_runs import SAMPLERS, WORTH, made

CONF = Path(__file__).parents[1] / "conf"
NASTY = "</script><img src=x onerror=\"document.title='owned'\">&amp;\u2028'\""


def parsed(results: list[dict[str, Any]]) -> list[Result]:
    return [Result.parse(result) for result in results]


def comparison(
    title: str,
    runs: Path,
    results: list[dict[str, Any]],
    failures: Sequence[Failure] = (),
    command: str = "",
    motions: Mapping[str, Any] | None = None,
) -> Comparison:
    """A comparison of flat results."""
    return Comparison(title, runs, parsed(results), failures, command, motions=motions)


# --- what the choices are worth ---------------------------------------------------------------------------------------


def test_factors_are_what_varies_and_nothing_else(tmp_path: Path) -> None:
    results = made(tmp_path, 24, pictures=False)
    assert {name: len(set(options)) for name, options in factors(parsed(results)).items()} == {
        "sampler": 6,
        "sampler.nfe": 4,
    }
    assert factors(parsed(results))["sampler"] == [result["sampler"] for result in results]
    assert factors(parsed(results[:1])) == {}
    results[3]["overrides"] += " paths.runs=elsewhere hydra.launcher.jobs=2 trainer.devices=2 logger=csv"
    assert set(factors(parsed(results))) == {"sampler", "sampler.nfe"}
    results[3]["overrides"] += " +ema.decay=0.5"
    assert factors(parsed(results))["ema.decay"].count("-") == 23


def test_an_effect_is_the_mean_of_the_differences_between_cells_that_agree_in_all_else(tmp_path: Path) -> None:
    results = made(tmp_path, 72, pictures=False)
    for factor in ("sampler", "schedule"):
        found = effects(parsed(results), "fd_digits", factor)
        best = min((option for option in WORTH if option in factors(parsed(results))[factor]), key=WORTH.__getitem__)
        assert {effect.beside for effect in found} == {best}
        assert len(found) == len(set(factors(parsed(results))[factor])) - 1
        for effect in found:
            assert effect.mean is not None
            assert effect.mean.value == pytest.approx(WORTH[effect.option] - WORTH[best])
            assert effect.mean.paired
            assert effect.mean.low < WORTH[effect.option] - WORTH[best] < effect.mean.high
            assert effect.wins == 0
            assert len(effect.pairs) == {"sampler": 12, "schedule": 24}[factor]


def test_gaps_in_the_grid_do_not_favour_whoever_was_tried_in_easy_places(tmp_path: Path) -> None:
    # DDIM with many network calls only, beside DPM++ with few as well: the plain means would say DDIM.
    results = [
        result
        for result in made(tmp_path, 24, pictures=False)
        if result["sampler"] == "dpmpp_2m" or (result["sampler"] == "ddim" and result["nfe"] == 50)
    ]
    kept = [result for result in results if not (result["sampler"] == "dpmpp_2m" and result["nfe"] == 20)]
    means = {
        name: np.mean([result["fd_digits"] for result in kept if result["sampler"] == name])
        for name in ("ddim", "dpmpp_2m")
    }
    assert means["ddim"] - means["dpmpp_2m"] < WORTH["ddim"] - WORTH["dpmpp_2m"]
    (effect,) = effects(parsed(kept), "fd_digits", "sampler")
    assert (effect.option, effect.beside, len(effect.pairs)) == ("ddim", "dpmpp_2m", 1)
    assert effect.pairs[0] == pytest.approx(0.3)


def test_larger_is_better_turns_the_effects_around(tmp_path: Path) -> None:
    results = made(tmp_path, 24, pictures=False)
    found = effects(parsed(results), "precision_digits", "sampler")
    assert {effect.beside for effect in found} == {"dpmpp_2m"}
    assert all(effect.pairs[0] < 0 and effect.wins == 0 for effect in found)


def test_the_mean_differences_interval_is_the_jackknife_of_the_mean(tmp_path: Path) -> None:
    results = made(tmp_path, 8, pictures=False)
    pairs = [(Result.parse(results[i]), Result.parse(results[i + 4])) for i in range(4)]
    found = statistics.mean_difference(pairs, "fd_digits")
    assert found is not None

    def blocks(result: Result) -> np.ndarray:
        return np.array(result.measure("fd_digits").jackknife)

    without = np.mean([blocks(a) - blocks(b) for a, b in pairs], axis=0)
    n = len(without)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    assert found.half == pytest.approx(statistics.t_quantile(0.975, n - 1) * error)
    single = statistics.difference(*pairs[0], "fd_digits")
    alone = statistics.mean_difference(pairs[:1], "fd_digits")
    assert single is not None
    assert alone is not None
    assert (alone.value, alone.half) == (pytest.approx(single.value), pytest.approx(single.half))
    others = [(pairs[0][0], pairs[0][1].replace(sample_seed=1))]
    assert statistics.mean_difference(others, "fd_digits") is None


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_a_strip_holds_the_very_pixels_of_the_first_samples(tmp_path: Path, channels: int, size: int) -> None:
    x = torch.randint(0, 256, (30, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grid(x, tmp_path / "samples.png")
    found = strip(tmp_path / "samples.png", 12)
    assert found is not None
    assert (found["images"], found["width"], found["height"]) == (12, size, size)
    kind, _, content = found["src"].partition(",")
    assert kind == "data:image/webp;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
    for i in range(12):
        expected = x[i].expand(3, -1, -1).permute(1, 2, 0).numpy()
        assert np.array_equal(pixels[:, i * size : (i + 1) * size], expected)
    many = strip(tmp_path / "samples.png", 99)
    assert many is not None
    assert many["images"] == 30


def test_pictures_that_are_no_grid_or_cannot_be_read_break_nothing(tmp_path: Path) -> None:
    assert strip(tmp_path / "absent.png", 4) is None
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n half a picture")
    assert strip(tmp_path / "half.png", 4) is None
    scatter(torch.randn(50, 2), tmp_path / "points.png")
    found = strip(tmp_path / "points.png", 4)
    assert found is not None
    assert found["images"] == 0
    assert found["width"] <= 300


# --- what it says -----------------------------------------------------------------------------------------------------


def answer(results: list[dict[str, Any]], runs: Path) -> str:
    return " ".join(page_data(comparison("s", runs, results))["tables"][0]["answer"])


def test_the_answer_names_winner_margin_certainty_and_cost(tmp_path: Path) -> None:
    results = made(tmp_path, 72, pictures=False)
    best = min(results, key=lambda result: result["fd_digits"])
    assert (best["sampler"], best["schedule"], best["nfe"]) == ("dpmpp_2m", "cosine", 50)
    won, beside, took = page_data(comparison("s", tmp_path, results))["tables"][0]["answer"]
    assert beside == "The first is 5.2 times what real data reach, 0.2000: undertrained, or too few steps."
    assert won.startswith(
        "sampler=dpmpp_2m schedule=cosine sampler.nfe=50 is best with 95 % confidence: fd_digits 1.040"
    )
    assert "at 50 network calls a sample, 0.050 \u00b1 0.0" in won
    assert won.endswith("less than the next, sampler=unipc schedule=cosine sampler.nfe=50.")
    assert took == "72 cells of 3 trainings took 4 min 00 s of training, and 3 min 09 s of sampling and evaluation."
    larger = [{**result, "metric": "precision_digits"} for result in results]
    assert "cannot be told from it" in answer(larger, tmp_path), "no blocks, no certainty"


def test_external_images_are_no_training_and_a_single_cell_wins_nothing(tmp_path: Path) -> None:
    ours, theirs = made(tmp_path, 2, pictures=False)
    images = {key: value for key, value in theirs.items() if key not in ("sampler", "schedule", "nfe", "fit_seconds")}
    said = answer([ours, {**images, "fit": "f" * 12, "images": "mine", "overrides": "images=mine"}], tmp_path)
    assert "2 cells of 1 training took 1 min 20 s of training" in said
    (alone, *_) = page_data(comparison("s", tmp_path, [ours]))["tables"][0]["answer"]
    assert alone.startswith("diffuser=v sampler=ddim schedule=cosine backbone=unet dataset=digits: fd_digits 1.700")
    assert "best" not in alone


def test_the_page_says_what_all_cells_share(tmp_path: Path) -> None:
    (table,) = page_data(comparison("s", tmp_path, made(tmp_path, 24, pictures=False)))["tables"]
    assert table["common"] == "diffuser=v schedule=cosine backbone=unet dataset=digits seed=0"


def test_a_command_is_typed_as_it_stands_whatever_the_values_are(tmp_path: Path) -> None:
    (result,) = made(tmp_path, 1, pictures=False)
    words = ["metric=[frechet,kernel]", "dataset.folder=my images/$HOME's", "+note=a;b"]
    result["overrides"] = " ".join(words)
    command = page_data(comparison("s", tmp_path, [result]))["cells"][result["cell"]]["command"]
    assert shlex.split(command) == ["python", "train.py", *words]


def test_logs_of_a_cell_are_those_of_its_training_and_of_its_own_job(tmp_path: Path) -> None:
    one, other = made(tmp_path, 2, pictures=False, sweep="mine")
    jobs = (
        Job("fit", one["fit"], (one["cell"], other["cell"]), log="logs/fit.log"),
        Job("cells", one["fit"], (one["cell"],), log="logs/cells.log"),
    )
    (tmp_path / "sweeps" / "mine").mkdir(parents=True)
    assert page_data(comparison("s", tmp_path, [one]))["cells"][one["cell"]]["logs"] == []
    LaunchRecord("local", jobs).write(tmp_path / "sweeps" / "mine")
    cells = page_data(comparison("s", tmp_path, [one, other]))["cells"]
    folder = tmp_path / "sweeps" / "mine" / "logs"
    assert cells[one["cell"]]["logs"] == [str(folder / "fit.log"), str(folder / "cells.log")]
    assert cells[other["cell"]]["logs"] == [str(folder / "fit.log")]


def test_cells_that_failed_for_one_reason_are_told_of_once(tmp_path: Path) -> None:
    lost = [Failure("f", f"c{i}", name=f"seed={i}", reason="out of memory") for i in range(3)]
    lost.append(Failure("f", "d", name="seed=9", reason="no such file", log="there.log"))
    error = Fit(tmp_path / "fits" / "f").cell("c1").error_file
    error.parent.mkdir(parents=True)
    error.write_text("the trace")
    first, second = page_data(comparison("s", tmp_path, [], lost))["failures"]
    assert [cell["name"] for cell in first["cells"]] == ["seed=0", "seed=1", "seed=2"]
    assert (first["reason"], first["trace"]) == ("out of memory", "the trace")
    assert second["cells"] == [{"name": "seed=9", "log": "there.log"}]


def test_the_answer_does_not_name_a_winner_that_chance_made(tmp_path: Path) -> None:
    results = made(tmp_path, 24, pictures=False)
    twin = {**results[11], "cell": "f" * 12, "sampler": "heun_sde", "fd_digits": results[11]["fd_digits"] + 1e-5}
    twin["overrides"] = twin["overrides"].replace("dpmpp_2m", "heun_sde")
    blocks = [float(word) for word in twin["fd_digits_jackknife"].split()]
    twin["fd_digits_jackknife"] = " ".join(f"{value + 1e-4 * (-1) ** i:.9g}" for i, value in enumerate(blocks))
    said = answer([*results, twin], tmp_path)
    assert "but 1 other cannot be told from it with 95 % confidence." in said
    assert "These may be as good: sampler=heun_sde sampler.nfe=50." in said
    assert "is best" not in said
    assert "cheapest" not in said
    said = answer([*results, {**twin, "nfe": 7}], tmp_path)
    assert "The cheapest of them is sampler=heun_sde sampler.nfe=50: fd_digits 1.040" in said
    assert said.count("at 7 network calls a sample") == 1


def test_cells_that_were_measured_differently_come_in_tables_of_their_own(tmp_path: Path) -> None:
    results = [*made(tmp_path / "a", 24, pictures=False), *made(tmp_path / "b", 12, pictures=False, samples=100)]
    found = page_data(comparison("s", tmp_path, results))
    assert [len(table["rows"]) for table in found["tables"]] == [24, 12]
    assert found["apart"] == ["samples"]
    assert [table["apart"] for table in found["tables"]] == ["samples 500", "samples 100"]


def test_settings_of_a_cell_are_those_of_the_best_and_what_differs(tmp_path: Path) -> None:
    results = made(tmp_path, 24, pictures=False)
    found = page_data(comparison("s", tmp_path, results))
    for result in results:
        config = found["config"] | found["cells"][result["cell"]]["differs"]
        assert config["sampler"] == result["sampler"]
        assert config["deep.nfe"] == str(result["nfe"])
        assert config["deep.list"] == "[1, 2]"
    assert found["cells"][found["best"]]["differs"] == {}


def test_five_hundred_cells_make_a_few_megabytes(tmp_path: Path) -> None:
    results = made(tmp_path, 500)
    write(comparison("five hundred", tmp_path, results), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 4e6
    assert len(page_data(comparison("s", tmp_path, results))["strips"]) == 500


def test_ten_thousand_cells_make_a_page_that_can_be_sent(tmp_path: Path) -> None:
    one = made(tmp_path, 72, pictures=False)
    results = [
        result | {"cell": f"{seed:03d}{i:09d}", "overrides": result["overrides"].replace("seed=0", f"seed={seed}")}
        for seed in range(139)
        for i, result in enumerate(one)
    ]
    about = Comparison("many", tmp_path, parsed(results), configs={result["cell"]: {} for result in results})
    write(about, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert len(results) > 10_000
    assert len(text) < 10e6
    (packed,) = re.findall(r'<script type="application/gzip" id="data">([^<]*)<', text)
    assert len(json.loads(gzip.decompress(base64.b64decode(packed)))["cells"]) == len(results)


def test_nothing_finished_and_everything_failed_is_a_page_too(tmp_path: Path) -> None:
    failure = Failure("f", "c", name="sampler=x", reason=NASTY)
    write(comparison("none", tmp_path, [], [failure]), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No cell is finished" in text
    assert "1 cell without a result" in text
    assert "<img src=x" not in text


def test_every_paper_that_an_option_names_is_in_the_bibliography() -> None:
    listed = dict(entries())
    keys = [re.match(r"@misc\{(\w+),", text) for text in listed]
    assert all(keys)
    assert len({key[1] for key in keys if key}) == len(keys)
    for path in CONF.rglob("*.yaml"):
        header = "\n".join(path.read_text().splitlines()[:2])
        option = f"{path.parent.relative_to(CONF).as_posix()}={path.stem}"
        for paper in (
            re.findall(r"arXiv (\d{4}\.\d{4,5})", header) if path.parent not in (CONF, CONF / "sweeps") else ()
        ):
            found = [options for text, options in listed.items() if f"eprint = {{{paper}}}" in text]
            assert len(found) == 1, f"{paper}, named by {option}, has no entry"
            assert option in found[0], f"the entry of {paper} does not list {option}"
    for options in listed.values():
        for option in options:
            group, _, name = option.partition("=")
            assert (CONF / group / f"{name}.yaml").is_file(), option
    some = bibtex([Result.parse({"sampler": "ddim", "overrides": "sampler/spacing=karras"})])
    assert "2010.02502" in some
    assert "2206.00364" in some
    assert "options" not in some
    assert bibtex([Result.parse({"sampler": "nobodys"})]) == ""
    assert "2206.00364" in bibtex([Result.parse({"sampler": "nobodys"})], ["sampler/spacing=karras"])


def test_the_bibliography_of_a_sweep_has_also_what_its_defaults_brought(tmp_path: Path) -> None:
    result = made(tmp_path, 1, pictures=False)[0]
    choices = {"sampler": "ddim", "sampler/spacing": "karras", "hydra/launcher": "slurm", "logger": "wandb"}
    config = {"evaluation": {"metrics": {"kernel": {}}}}
    plan = Plan(tmp_path / "sweeps/s", tmp_path).with_tasks(
        [SignedConfig((), config, choices, result["fit"], result["cell"])]
    )
    about = sweep_end.comparison(plan.folder, tmp_path, plan)
    assert about.options == {"sampler=ddim", "sampler/spacing=karras", "metric=kernel"}
    write(about, tmp_path / "report.html")
    assert "2206.00364" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (Measure("fd", 0.65, 0.6, 0.7, 0.2), "3.2 times what real data reach, 0.2000: undertrained, or too few steps"),
        (Measure("fd", 0.5, 0.45, 0.55, 0.2), "2.5 times what real data reach, 0.2000"),
        (Measure("fd", 0.25, 0.23, 0.27, 0.2), "1.2 times what real data reach, 0.2000: near real data"),
        (Measure("fd", 0.25, 0.19, 0.31, 0.2), "as good as real data: real data reach 0.2000"),
        (Measure("fd", 300.0, floor=0.2), "1500 times what real data reach, 0.2000: undertrained, or too few steps"),
        (
            Measure("kd", 0.02, 0.01, 0.03, -0.001),
            "above what real data reach, -0.001000, which is zero but for chance",
        ),
        (
            Measure("kd", -0.002, -0.004, 0.0, -0.001),
            "below zero by chance, which an estimate without bias may be near zero: real data reach -0.001000",
        ),
        (Measure("precision_x", 0.48, 0.4, 0.5, 0.9), "53 % of what real data reach, 0.9000"),
        (Measure("precision_x", 0.88, 0.8, 0.95, 0.9), "as good as real data: real data reach 0.9000"),
        (Measure("fd", 0.5), ""),
        (Measure("fd", None, floor=0.2), ""),
    ],
)
def test_a_number_beside_that_of_real_data_in_words(measure: Measure, said: str) -> None:
    assert verdict(measure) == said


def test_options_have_the_digits_that_tell_them_apart() -> None:
    assert shown_options(["0.00012345678901234", "0.0098765432109876", "-"]) == ["0.0001235", "0.009877", "-"]
    assert shown_options(["0.12345678", "0.12345699"]) == ["0.1234568", "0.123457"]
    kept = ["1234567890", "0.001", "1e-3", "v1.2.3.4.5"]
    assert shown_options(kept) == kept


def test_a_search_is_reported_with_readable_numbers(tmp_path: Path) -> None:
    results = made(tmp_path, 4, pictures=False)
    rates = [0.0012345678901234567, 0.00023456789012345, 0.034567890123456, 0.00045678901234567]
    for result, rate in zip(results, rates, strict=True):
        result["overrides"] += f" optimizer.lr={rate!r}"
    found = page_data(comparison("search", tmp_path, results))
    assert {row["factor optimizer.lr"] for row in found["tables"][0]["rows"]} == {
        "0.001235",
        "0.0002346",
        "0.03457",
        "0.0004568",
    }
    # What repeats a cell has all digits.
    assert any(repr(rates[0]) in cell["command"] for cell in found["cells"].values())


# --- a real browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless() as opened:
        yield opened


def cells_of(browser: Any, field: str) -> list[str]:
    selector = f'#table .tabulator-row .tabulator-cell[tabulator-field="{field}"]'
    script = "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.textContent)"
    return browser.execute_script(script, selector)


@pytest.mark.slow
def test_a_reader_sorts_filters_enlarges_and_reads_at_night(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    results = made(tmp_path, 24)
    results[5]["sampler"] = NASTY
    failure = Failure("f", "c", name=f"sampler={NASTY}", reason=NASTY, log=NASTY)
    about = comparison(f"real {NASTY}", tmp_path, results, [failure], NASTY)
    write(about, tmp_path / "report.html")
    browser.set_window_size(1280, 1000)
    browser.get((tmp_path / "report.html").as_uri())
    wait(browser, "document.querySelectorAll('.js-plotly-plot').length >= 4")
    wait(browser, "document.querySelectorAll('#table .tabulator-row').length > 3")
    order = sorted(results, key=lambda result: result["fd_digits"])
    assert cells_of(browser, "factor sampler")[:3] == [result["sampler"] for result in order[:3]]
    assert cells_of(browser, "mark")[0] == "best"

    # Sorted by network calls, then by the number again.
    header = browser.find_element(By.CSS_SELECTOR, '.tabulator-col[tabulator-field="nfe"] .tabulator-col-title')
    browser.execute_script("arguments[0].scrollIntoView({inline: 'center', block: 'center'})", header)
    header.click()
    wait(browser, "document.querySelector('#table [tabulator-field=nfe].tabulator-cell').textContent", "5")
    header.click()
    wait(browser, "document.querySelector('#table [tabulator-field=nfe].tabulator-cell').textContent", "50")

    # By keys as well.
    browser.find_element(By.CSS_SELECTOR, '.tabulator-col[tabulator-field="place"]').send_keys(Keys.ENTER)
    wait(browser, "document.querySelector('#table [tabulator-field=place].tabulator-cell').textContent", "1")

    # Its numbers have the digits that they have elsewhere.
    stream = np.random.default_rng(0)
    pairs = (10 ** stream.uniform(-6, 7, (500, 2))).tolist()
    said = browser.execute_script("return arguments[0].map(([value, half]) => measured(-value, half))", pairs)
    for (value, reach), text in zip(pairs, said, strict=True):
        # A power of ten may have a 0 in front.
        here = re.sub(r"e([+-])(\d)\b", r"e\g<1>0\2", text.replace("\u00a0", " "))
        assert here == with_error(-value, reach, "\u00b1")

    # Filtered by words.
    browser.find_element(By.ID, "find").send_keys("heun nfe=20")
    wait(browser, "document.getElementById('shown').textContent", "1 of 24 cells")
    assert cells_of(browser, "factor sampler") == ["heun"]
    browser.find_element(By.ID, "find").send_keys(Keys.CONTROL, "a", Keys.DELETE)
    wait(browser, "document.getElementById('shown').textContent", "24 of 24 cells")

    # Another number ranks.
    browser.find_element(By.CSS_SELECTOR, '#number option[value="precision_digits"]').click()
    wait(browser, "document.querySelector('#table [tabulator-field=shown]').textContent.includes('precision_digits')")
    assert len(cells_of(browser, "shown")) == 24
    browser.find_element(By.CSS_SELECTOR, '#number option[value="fd_digits"]').click()

    # The table that is downloaded is that of `diffsweep results --format csv`.
    got = pd.read_csv(io.StringIO(browser.execute_script("return csv()")), dtype_backend="numpy_nullable")
    expected = pd.read_csv(io.StringIO(export.text(parsed(results), "csv")), dtype_backend="numpy_nullable")
    pd.testing.assert_frame_equal(got, expected, check_dtype=False)

    # An image is enlarged beside that of the best, and the keys go on.
    images = browser.find_elements(By.CSS_SELECTOR, "#strips img")
    assert len(images) == 24
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", images[4])
    images[4].click()
    wait(browser, "document.getElementById('light').open")
    wait(browser, "document.querySelectorAll('#large canvas').length", 2)
    before = browser.find_element(By.ID, "caption").text
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    wait(browser, f"document.getElementById('caption').textContent !== {json.dumps(before)}")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait(browser, "document.getElementById('light').open", False)

    # Night.
    shade = "getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(f"return {shade}")
    browser.execute_script("scrollTo(0, 0)")
    browser.find_element(By.ID, "theme").click()
    wait(browser, f"{shade} !== {json.dumps(light)}")
    browser.save_screenshot(str(tmp_path / "dark.png"))

    # On paper: by day, all rows, and nothing wider than the paper.
    wait(browser, "document.getElementById('failures').hidden", False)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    rows = "document.querySelectorAll('.tabulator-print-table tbody tr').length"
    wait(browser, rows, 24)
    wait(browser, f"{shade} === {json.dumps(light)}")
    wait(browser, "Math.max(...[...document.querySelectorAll('.main-svg')].map((one) => one.clientWidth)) <= 700")
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    wait(browser, rows, 0)
    wait(browser, f"{shade} !== {json.dumps(light)}")

    # A phone: nothing sticks out.
    browser.set_window_size(500, 900)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    wait(browser, "document.documentElement.scrollWidth <= 392")
    browser.save_screenshot(str(tmp_path / "phone.png"))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    # A phone that is turned: the legend does not lie on the lines.
    drawn, side = "document.querySelector('#pareto .main-svg').clientWidth", "getBoundingClientRect()"
    wait(browser, f"{drawn} < 500")
    browser.set_window_size(1280, 900)
    wait(browser, f"{drawn} > 1000")
    legend, lines = (f"document.querySelector('#pareto .{part}').{side}" for part in ("legend", "gridlayer"))
    wait(browser, f"{legend}.bottom <= {lines}.top + 3", seconds=5)

    # No value became markup, nothing was fetched, nobody complained.
    assert browser.title == f"real {NASTY} - diffsweep"
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.slow
def test_axes_are_brushed_and_moved_with_a_mouse(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    write(comparison("axes", tmp_path, made(tmp_path, 24, pictures=False)), tmp_path / "report.html")
    browser.set_window_size(1200, 1000)
    browser.get(f"file://{tmp_path}/report.html")
    wait(browser, "document.querySelectorAll('#parallel .rail').length", 3)
    browser.execute_script("find('parallel').scrollIntoView({ block: 'center' })")

    def axes() -> list[str]:
        rails = browser.find_elements(By.CSS_SELECTOR, "#parallel .rail")
        return [str(rail.get_attribute("data-axis")) for rail in rails]

    assert axes() == ["sampler", "sampler.nfe", "fd_digits"]
    # The upper half of the axis of network calls: 20 and 50.
    rail = browser.find_elements(By.CSS_SELECTOR, "#parallel .rail")[1]
    tall = rail.size["height"] // 2
    drag = ActionChains(browser).move_to_element_with_offset(rail, 0, -2).click_and_hold()
    drag.move_by_offset(0, -tall // 2).move_by_offset(0, -tall // 2 + 6).release().perform()
    wait(browser, "find('brushed').textContent.startsWith('12 of 24 cells')")
    wait(browser, "find('shown').textContent", "12 of 24 cells")
    assert set(cells_of(browser, "nfe")) == {"20", "50"}
    assert browser.execute_script("return document.querySelectorAll('#parallel .brush').length") == 1
    # The first axis by its name to the last place.
    wide = browser.execute_script("const { xaxis } = find('parallel')._fullLayout; return xaxis.l2p(1) - xaxis.l2p(0)")
    grip = browser.find_elements(By.CSS_SELECTOR, "#parallel .grip")[0]
    drag = ActionChains(browser).move_to_element(grip).click_and_hold()
    drag.move_by_offset(int(wide), 0).move_by_offset(int(wide), 0).release().perform()
    wait(browser, "document.querySelector('#parallel .rail').dataset.axis", "sampler.nfe")
    assert axes() == ["sampler.nfe", "fd_digits", "sampler"]
    assert browser.execute_script("return find('brushed').textContent").startswith("12 of 24 cells")
    # A click lets go.
    ActionChains(browser).click(browser.find_elements(By.CSS_SELECTOR, "#parallel .rail")[0]).perform()
    wait(browser, "find('shown').textContent", "24 of 24 cells")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_one_picture_slides_over_that_of_another_cell(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    results = made(tmp_path, 6)
    write(comparison("slide", tmp_path, results), tmp_path / "slide.html")
    browser.set_window_size(1280, 1000)
    browser.get((tmp_path / "slide.html").as_uri())
    wait(browser, "document.querySelectorAll('.strips img').length > 2")
    names = "[...document.querySelectorAll('#large figcaption')].map((one) => one.textContent.split('.')[0])"
    browser.execute_script("document.querySelectorAll('.strips img')[2].click()")
    wait(browser, names, ["3", "1"])
    # Beside another than the best.
    browser.find_elements(By.CSS_SELECTOR, "#beside option")[1].click()
    wait(browser, names, ["3", "2"])
    assert not browser.find_element(By.ID, "slide").is_displayed()
    browser.find_element(By.ID, "sliding").click()
    wait(browser, "document.querySelectorAll('#large .over canvas').length", 2)
    slider = browser.find_element(By.ID, "slide")
    clip = "document.querySelector('#large .over').lastChild.style.clipPath"
    wait(browser, clip, "inset(0px 0px 0px 50%)")
    box = "document.querySelector('#large .over').{}.getBoundingClientRect().toJSON()"
    boxes = [browser.execute_script(f"return {box.format(child)}") for child in ("firstChild", "lastChild")]
    assert boxes[0] == boxes[1]
    slider.send_keys(Keys.ARROW_RIGHT)
    wait(browser, clip, "inset(0px 0px 0px 51%)")
    wait(browser, names, ["3", "2"])
    slider.send_keys(Keys.HOME)
    wait(browser, clip, "inset(0px 0px 0px 0%)")
    # Arrows elsewhere go to other cells, and the choice stays.
    browser.find_element(By.CSS_SELECTOR, "#light form button").send_keys(Keys.ARROW_DOWN)
    wait(browser, names, ["4", "2"])
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 1280])
def test_titles_of_columns_break_between_words_only(browser: Any, tmp_path: Path, width: int) -> None:
    results = made(tmp_path, 12)
    results[0] |= {"saturated": 0.5, "reference_saturated": 0.01}
    write(comparison("titles", tmp_path, results), tmp_path / "titles.html")
    browser.set_window_size(width, 900)
    browser.get((tmp_path / "titles.html").as_uri())
    wait(browser, "document.querySelectorAll('#table .tabulator-row').length > 3")
    lines = """[...document.querySelectorAll('#table .tabulator-col-title')].flatMap((title) => {
      const text = title.firstChild;
      if (!text || text.nodeType !== 3) return [];
      return [...text.data.matchAll(/\\S+/g)].map((found) => {
        const range = document.createRange();
        range.setStart(text, found.index);
        range.setEnd(text, found.index + found[0].length);
        return [found[0], range.getClientRects().length];
      });
    })"""
    words = dict(browser.execute_script(f"return {lines}"))
    assert "saturated" in words
    assert {word: parts for word, parts in words.items() if parts != 1} == {}


@pytest.mark.slow
def test_a_page_of_two_protocols_and_of_none_works_as_well(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    results = [*made(tmp_path / "a", 12), *made(tmp_path / "b", 1, samples=100)]
    write(comparison("two", tmp_path / "a", results), tmp_path / "two.html")
    browser.get((tmp_path / "two.html").as_uri())
    wait(browser, "document.querySelectorAll('#which option').length", 2)
    browser.find_elements(By.CSS_SELECTOR, "#which option")[1].click()
    wait(browser, "document.getElementById('shown').textContent", "1 of 1 cells")
    # One cell has no choices to set against each other.
    for part in ("pair", "heat", "all", "parallel", "effects"):
        assert not browser.find_element(By.ID, part).is_displayed()
    assert not browser.find_element(By.CSS_SELECTOR, 'nav a[href="#effects"]').is_displayed()
    assert browser.find_element(By.CSS_SELECTOR, 'nav a[href="#images"]').is_displayed()
    write(comparison("none", tmp_path, []), tmp_path / "none.html")
    browser.get((tmp_path / "none.html").as_uri())
    wait(browser, "document.getElementById('leaderboard').hidden")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert page.ASSETS.is_dir()
    assert len(SAMPLERS) == 6


# --- how samples come about -------------------------------------------------------------------------------------------


def shown(uri: str) -> list[np.ndarray]:
    """Every frame of an animated WebP, uint8 (height, width, 3)."""
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        frames = []
        for i in range(getattr(opened, "n_frames", 1)):
            opened.seek(i)
            frames.append(np.asarray(opened.convert("RGB")))
    return frames


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_holds_the_very_pixels_of_states_and_aims(channels: int) -> None:
    stream = np.random.default_rng(0)
    given = [tuple(stream.integers(0, 256, (2, 3, channels, 8, 6), dtype=np.uint8)) for _ in range(60)]
    found = motion([(above, below) for above, below in given])
    frames = shown(found["src"])
    assert len(frames) == 20
    assert {frame.shape for frame in frames} == {(17, 20, 3)} == {(found["height"], found["width"], 3)}
    assert found["tile"] == 6
    for frame, pair in ((frames[0], given[0]), (frames[-1], given[-1])):
        for row, images in enumerate(pair):
            for i, image in enumerate(images):
                drawn = frame[9 * row : 9 * row + 8, 7 * i : 7 * i + 6]
                assert np.array_equal(drawn, np.broadcast_to(image.transpose(1, 2, 0), (8, 6, 3)))
    assert np.array_equal(shown(found["still"])[0], frames[-1])
    assert not any(np.array_equal(one, other) for one, other in itertools.pairwise(frames))


def test_points_are_drawn_as_clouds_to_one_scale() -> None:
    spread, tight = np.zeros((50, 2)), np.zeros((50, 2))
    spread[:, 0], tight[:, 0] = np.linspace(0, 3, 50), np.linspace(0, 1, 50)
    first, last = shown(clouds_motion([(spread, spread), (tight, tight)])["src"])
    # Ink right of the middle only, on its height, and three times as far at first.
    for frame, reach in ((first, 3), (last, 1)):
        rows, columns = np.nonzero(frame[:96, :, 0] < 255)
        assert set(rows) <= {47, 48}
        assert columns.min() == 48
        assert columns.max() == pytest.approx(48 + 48 * reach / 3.3, abs=1)


@pytest.mark.slow
def test_the_command_animates_the_very_samples_that_were_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = finish(tmp_path / "runs", *DIGITS, "sampler=ddim")
    monkeypatch.chdir(tmp_path)

    def data(*words: str) -> dict[str, Any]:
        assert commands.main(["report", "dataset=digits", "--out", "report.html", *words]) == 0
        found = re.search(r'id="data">(.*?)</script>', Path("report.html").read_text(), re.DOTALL)
        assert found is not None
        return json.loads(found[1])

    assert data()["motions"] == {}
    assert 'id="motions"' not in Path("report.html").read_text()
    found = data("--animate", "3")["motions"][result["cell"]]
    frames = shown(found["src"])
    # Six steps and where they end, of 3 images of 8 pixels.
    assert len(frames) == 7
    assert all(np.abs(one.astype(int) - other).max() > 0 for one, other in itertools.pairwise(frames))
    assert len(base64.b64decode(found["src"].partition(",")[2])) < 20_000
    scored = strip(tmp_path / "runs" / "fits" / result["fit"] / "cells" / result["cell"] / "samples.png", 3)
    assert scored is not None
    pixels = shown(scored["src"])[0].astype(int)
    for row in range(2):
        for i in range(3):
            drawn = frames[-1][9 * row : 9 * row + 8, 9 * i : 9 * i + 8]
            assert np.abs(drawn - pixels[:, 8 * i : 8 * i + 8]).max() <= 1
    capsys.readouterr()
    assert commands.main(["report", "dataset=digits", "--animate", "17"]) == 2
    assert "--animate 17 is too much for one page: at most 16" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_sees_samples_come_about_when_they_ask_for_it(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    results = made(tmp_path, 3)
    stream = np.random.default_rng(0)
    noise = [stream.integers(0, 256, (2, 4, 1, 8, 8), dtype=np.uint8) for _ in range(20)]
    animated = sorted(results, key=lambda result: result["fd_digits"])[:2]
    motions = {str(result["cell"]): motion([(above, below) for above, below in noise]) for result in animated}
    write(comparison("moving", tmp_path, results, motions=motions), tmp_path / "report.html")
    browser.set_window_size(1280, 1000)

    def moves(image: Any) -> bool:
        """Whether the screen shows it change, and change again: once it does when it begins or stops."""
        seen, end = {image.screenshot_as_png}, time.monotonic() + 3
        while time.monotonic() < end and len(seen) < 4:
            seen.add(image.screenshot_as_png)
        return len(seen) == 4

    def opened(preference: str) -> tuple[Any, Any]:
        features = [{"name": "prefers-reduced-motion", "value": preference}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get((tmp_path / "report.html").as_uri())
        wait(browser, "document.querySelectorAll('#moving img').length", 2)
        first, second = browser.find_elements(By.CSS_SELECTOR, "#moving img")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", first)
        return first, second

    def point(where: Any) -> None:
        ActionChains(browser).move_to_element(where).perform()

    # It stays at the top, whatever is scrolled: a pointer there is over no picture.
    heading = "nav a"
    first, second = opened("no-preference")
    assert "Shown are 2 of 3 cells" in browser.find_element(By.ID, "motions").text
    assert first.is_displayed()
    # 8 pixels each six times, with a gap.
    assert (first.size["width"], first.size["height"]) == (6 * 35, 6 * 17)
    point(browser.find_element(By.CSS_SELECTOR, heading))
    assert not moves(first)
    point(first)
    assert moves(first)
    point(second)
    assert moves(second)
    assert not moves(first)
    second.send_keys(Keys.ENTER)
    point(browser.find_element(By.CSS_SELECTOR, heading))
    assert second.get_attribute("aria-pressed") == "true"
    assert moves(second)
    second.send_keys(Keys.ENTER)
    assert not moves(second)
    browser.find_element(By.ID, "go").click()
    assert moves(first)
    assert moves(second)
    browser.save_screenshot(str(tmp_path / "moving.png"))

    first, _ = opened("reduce")
    point(first)
    assert not moves(first)
    first.click()
    assert moves(first)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
