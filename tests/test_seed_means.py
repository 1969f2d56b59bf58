"""Several training seeds are one row of a table, with the mean over them and an interval that is about other seeds."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import forked_runs
from diffsweep import commands
from diffsweep.report.format import with_error
from diffsweep.report.statistics import t_quantile
from diffsweep.sweep.store.result import Result
from finished_runs import CONF
from tiny import TINY

ROOT = Path(__file__).parents[1]
MEANS = "means over trainings of seeds 0, 1 and 2: their intervals are about other seeds too"
SETTINGS = [*TINY, "training.steps=20", "sampler.nfe=4"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with three seeds of two samplers, and what the sweep printed."""
    project = tmp_path_factory.mktemp("project")
    (project / "conf").symlink_to(CONF)
    words = ["-m", *SETTINGS, "seed=0,1,2", "sampler=ddim,heun", "hydra.sweep.dir=runs/sweeps/night"]
    done = forked_runs.run([str(ROOT / "train.py"), *words], project, os.environ, timeout=300)
    assert done.returncode == 0, done.stderr
    return project, done.stdout


def cells(project: Path, sampler: str) -> list[Result]:
    found: list[Any] = [json.loads(path.read_text()) for path in project.glob("runs/fits/*/cells/*/result.json")]
    return sorted((Result(one) for one in found if one["sampler"] == sampler), key=lambda one: one.seed or 0)


def interval(values: Sequence[float], without: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean and half width: that of the seeds and that of the samples, which all seeds share, add in squares."""
    by_seed = t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    means = [statistics.fmean(column) for column in zip(*without, strict=True)]
    blocks = len(means)
    error = math.sqrt((blocks - 1) / blocks * sum((one - statistics.fmean(means)) ** 2 for one in means))
    return statistics.fmean(values), math.hypot(by_seed, t_quantile(0.975, blocks - 1) * error)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line[:1].isdigit() and line[1:3] == "  "]


def test_a_sweep_over_seeds_ranks_methods(sweep: tuple[Path, str]) -> None:
    project, printed = sweep
    lines = printed.splitlines()
    assert lines[0].startswith("6 runs of 3 trainings, by ")
    by_sampler = {next(word for word in row if word in ("ddim", "heun")): row for row in rows(printed)}
    assert len(rows(printed)) == len(by_sampler) == 2
    means = {}
    for sampler, row in by_sampler.items():
        group = cells(project, sampler)
        assert [one.seed for one in group] == [0, 1, 2]
        main = [one.main for one in group]
        mean, half = interval([one.value or math.nan for one in main], [one.jackknife for one in main])
        means[sampler] = mean
        assert with_error(mean, half) in " ".join(row)
    assert by_sampler[min(means, key=means.__getitem__)] == rows(printed)[0]
    assert any(line.startswith(MEANS) for line in lines)


def test_the_report_answers_for_methods_and_not_for_seeds(sweep: tuple[Path, str]) -> None:
    project, _ = sweep
    (file,) = project.glob("runs/sweeps/*/report.html")
    page = file.read_text()
    found = re.search(r'"answer":\s*(?=\[)', page)
    assert found is not None
    first, *more = json.JSONDecoder().raw_decode(page, found.end())[0]
    assert "seed=" not in first
    means = {}
    for sampler in ("ddim", "heun"):
        main = [one.main for one in cells(project, sampler)]
        means[sampler] = interval([one.value or math.nan for one in main], [one.jackknife for one in main])
    best = min(means, key=lambda sampler: means[sampler][0])
    assert first.startswith(f"sampler={best} ")
    mean, half = means[best]
    assert with_error(mean, half, "\N{PLUS-MINUS SIGN}") in first
    assert "Means over trainings of seeds 0, 1 and 2: their intervals are about other seeds too." in more
    assert more[-1].startswith("6 cells of 3 trainings took ")


def test_the_best_pictures_are_those_of_the_best_method(sweep: tuple[Path, str]) -> None:
    project, printed = sweep
    groups = [cells(project, sampler) for sampler in ("ddim", "heun")]
    best = min(groups, key=lambda group: statistics.fmean(one.main.value or math.nan for one in group))
    cell = min(best, key=lambda one: one.main.value or math.nan).cell
    assert any(line.startswith("best pictures") and cell in line for line in printed.splitlines())


def test_a_seed_that_was_not_typed_is_one_more_and_an_edited_default_is_not(
    sweep: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = sweep
    monkeypatch.chdir(project)
    own = cells(project, "ddim")[0]
    file = project / f"runs/fits/{own.fit}/cells/{own.cell}/result.json"
    record = file.read_text()
    config = file.with_name("config.yaml")
    text = config.read_text()
    try:
        # As `python train.py` without seed=0 has it.
        file.write_text(record.replace(" seed=0", ""))
        assert commands.main(["results", "sampler=ddim"]) == 0
        out = capsys.readouterr().out
        assert MEANS in out
        assert len(rows(out)) == 1
        config.write_text(text.replace("clip: 1.0", "clip: 2.0"))
        assert commands.main(["results", "sampler=ddim"]) == 0
        out = capsys.readouterr().out
        assert "means over" not in out
        assert len(rows(out)) == 3
    finally:
        file.write_text(record)
        config.write_text(text)


def test_each_cell_is_in_the_csv_and_in_a_table_sorted_by_a_column(
    sweep: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = sweep
    monkeypatch.chdir(project)
    assert commands.main(["results", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert commands.main(["results", "--sort", "seed"]) == 0
    out = capsys.readouterr().out
    assert "means over" not in out
    assert len(rows(out)) == 6
