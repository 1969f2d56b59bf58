"""What a report says of a search: its trials in their order, Optuna's importance, and slices, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from browsers import headless, wait
from diffsweep.entry import sweep_end
from diffsweep.report import page
from diffsweep.report.comparison import Comparison
from diffsweep.report.search_data import search_data
from diffsweep.sweep.search.objectives import Objectives
from diffsweep.sweep.search.search import Search
from diffsweep.sweep.search.study import SearchStudy
from diffsweep.sweep.store.result import Result
from made_runs import made

SPACE = {
    "optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
    "sampler": CategoricalDistribution(["ddim", "heun", "<b>x</b>"]),
}


def searched(folder: Path, runs: Path, trials: int = 24, objectives: Objectives | None = None) -> Search:
    """A search with made-up trials, of which the learning rate decides nearly everything."""
    objectives = objectives or Objectives()
    space = {key: distribution_to_json(one) for key, one in SPACE.items()}
    search = Search(folder, runs, space, objectives=objectives)
    folder.mkdir(parents=True)
    search.write()
    study = SearchStudy.open(search, create=True).study
    for i in range(trials):
        rate, sampler = 1e-5 * 1000 ** ((i * 7 % trials) / trials), ["ddim", "heun", "<b>x</b>"][i % 3]
        value = abs(i * 7 % trials - trials / 2) / trials + 0.001 * (i % 3) + 0.1
        values = [value, -value][: len(objectives.directions)]
        study.add_trial(
            optuna.trial.create_trial(
                params={"optimizer.lr": rate, "sampler": sampler},
                distributions=SPACE,
                values=values,
                user_attrs={"metric": "fd_digits", "cell": f"c{i}"},
            )
        )
    return search


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless() as opened:
        yield opened


def test_the_parameter_that_decides_is_the_one_that_matters(tmp_path: Path) -> None:
    search = searched(tmp_path / "sweeps" / "s", tmp_path)
    found = search_data(search.folder)
    assert found is not None
    assert found["objectives"] == [{"name": "fd_digits", "larger": False}]
    assert [trial["number"] for trial in found["trials"]] == list(range(24))
    assert found["counts"] == "24 complete"
    (importance,) = found["importance"]
    assert list(importance) == ["optimizer.lr", "sampler"]
    assert importance["optimizer.lr"] > 0.8
    assert sum(importance.values()) == pytest.approx(1)
    assert search_data(search.folder) == found


def test_each_objective_has_its_importance(tmp_path: Path) -> None:
    objectives = Objectives(("fd_digits", "nfe"), ("minimize", "maximize"))
    found = search_data(searched(tmp_path / "sweeps" / "s", tmp_path, objectives=objectives).folder)
    assert found is not None
    assert found["objectives"] == [{"name": "fd_digits", "larger": False}, {"name": "nfe", "larger": True}]
    assert len(found["importance"]) == 2
    values = {trial["number"]: trial["values"] for trial in found["trials"]}
    # Here the one objective is the other with its sign turned, and both ask for less of it: a lone trial is best.
    best = [trial["number"] for trial in found["trials"] if trial["in_front"]]
    assert best == sorted(
        one
        for one, (a, b) in values.items()
        if not any(c <= a and d >= b and (c, d) != (a, b) for c, d in values.values())
    )


def test_the_front_of_objectives_that_disagree_is_all_that_no_trial_beats(tmp_path: Path) -> None:
    objectives = Objectives(("fd_digits", "nfe"), ("minimize", "minimize"))
    found = search_data(searched(tmp_path / "sweeps" / "s", tmp_path, objectives=objectives).folder)
    assert found is not None
    # What the one gains the other loses: no trial beats another.
    assert all(trial["in_front"] for trial in found["trials"])
    alone = search_data(searched(tmp_path / "sweeps" / "alone", tmp_path).folder)
    assert alone is not None
    (best,) = [trial for trial in alone["trials"] if trial["in_front"]]
    assert best["values"] == min(trial["values"] for trial in alone["trials"])


def test_a_search_that_has_just_begun_says_nothing_of_importance(tmp_path: Path) -> None:
    few = search_data(searched(tmp_path / "sweeps" / "few", tmp_path, 3).folder)
    assert few is not None
    assert few["importance"] == [{}]
    assert search_data(searched(tmp_path / "sweeps" / "none", tmp_path, 0).folder) is None


def test_the_report_of_a_sweep_knows_that_it_is_a_search(tmp_path: Path) -> None:
    search = searched(tmp_path / "sweeps" / "s", tmp_path)
    about = sweep_end.comparison(search.folder, tmp_path, None)
    assert about.search == search_data(search.folder)
    (tmp_path / "sweeps" / "grid").mkdir()
    assert sweep_end.comparison(tmp_path / "sweeps" / "grid", tmp_path, None).search is None


@pytest.mark.slow
def test_a_reader_sees_history_importance_and_slices(browser: Any, tmp_path: Path) -> None:
    results = [Result.parse(one) for one in made(tmp_path, 6, pictures=False)]
    objectives = Objectives(("fd_digits", "nfe"), ("minimize", "maximize"))
    found = search_data(searched(tmp_path / "sweeps" / "s", tmp_path, objectives=objectives).folder)
    assert found is not None
    about = Comparison("search", tmp_path, results, search=found)
    page.write(about, tmp_path / "report.html")
    browser.get(f"file://{tmp_path}/report.html")
    wait(browser, "document.querySelectorAll('#slices .js-plotly-plot').length", 2)
    assert browser.execute_script("return find('history').data[0].x.length") == 24
    best = browser.execute_script("return find('history').data[1].y")
    assert best == sorted(best, reverse=True)
    assert browser.execute_script("return find('importance').data[0].y.at(-1)") == "optimizer.lr"
    assert browser.execute_script("return find('slice-0')._fullLayout.xaxis.type") == "log"
    assert browser.execute_script("return find('slice-1')._fullLayout.xaxis.type") == "category"
    # A larger number of the other objective is better: the best so far rises.
    browser.execute_script("find('objective').value = 'nfe'; find('objective').dispatchEvent(new Event('change'))")
    best = browser.execute_script("return find('history').data[1].y")
    assert best == sorted(best)
    assert browser.execute_script("return find('front').data[0].x.length") == 24
    assert browser.execute_script("return find('front').data.map((trace) => trace.name)") == ["trial", "Pareto front"]
    front = [trial["values"][::-1] for trial in found["trials"] if trial["in_front"]]
    drawn = browser.execute_script("const front = find('front').data[1]; return front.x.map((x, i) => [x, front.y[i]])")
    assert sorted(drawn) == sorted(front)
    assert not browser.execute_script("return document.querySelector('#search b')")
    page.write(replace(about, search=None), tmp_path / "grid.html")
    browser.get(f"file://{tmp_path}/grid.html")
    wait(browser, "find('search').hidden")
    assert not [entry for entry in browser.get_log("browser") if entry["source"] != "network"]
