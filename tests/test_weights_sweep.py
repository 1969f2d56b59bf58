"""Which average and which step, swept as a user types it: one training, one table, one report, and on after a kill."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

import brake
from processes import kill_with_children
from test_sweep import command, gone, last_sweep, results, resume, run, start, wait_for
from tiny import TINY

SWEEP = [
    *TINY,
    "training.steps=60",
    "training.averages=[0.05,0.1]",
    "training.keep=[20,30]",
    "training.snapshots=4",
    "validation=best",
    "validation.every=20",
    "validation.samples=32",
    "trainer.checkpoint_seconds=0.01",
    brake.LOSS,
    "weights.ema=null,0.05,0.07",
    "weights.step=last,best,20",
    "sampler=ddim,heun",
]
CELLS = 18


@pytest.mark.slow
def test_a_sweep_over_averages_and_steps_trains_once_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    rough, calm = tmp_path / "rough", tmp_path / "calm"
    rough.mkdir()
    calm.mkdir()
    pace = brake.environment(rough / "brake")

    plan = run(calm, ["-m", "diffsweep", "plan", *SWEEP], expect=0, **pace)
    assert "18 cells of 1 training" in plan.stdout + plan.stderr
    assert not list(calm.glob("runs/fits/*"))
    undisturbed = run(calm, command("-m", *SWEEP), expect=0, **pace)
    assert "18 runs of 1 training" in undisturbed.stdout

    # Killed between two averages that are kept.
    (rough / "brake").write_text("loss 25")
    process = start(rough, command("-m", *SWEEP), **pace)
    wait_for(lambda: list(rough.glob("runs/fits/*/checkpoints/average-20.*")) or process.poll() is not None, "step 20")
    assert process.poll() is None, process.communicate()
    family = kill_with_children(process.pid)
    wait_for(lambda: gone(family), "the end of all processes")
    assert not list(rough.glob("runs/fits/*/checkpoints/average-30.*"))
    (rough / "brake").unlink()
    run(rough, resume(), expect=0, **pace)

    values = [{cell: result["w2_points"] for cell, result in results(cwd).items()} for cwd in (rough, calm)]
    assert values[0] == values[1]
    assert len(values[0]) == CELLS
    kept = [{path.name: path.read_bytes() for path in cwd.glob("runs/fits/*/checkpoints/*")} for cwd in (rough, calm)]
    assert kept[0] == kept[1]

    folder = last_sweep(rough)
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert len(rows) == CELLS
    assert len({row["fit"] for row in rows}) == 1
    page = (folder / "report.html").read_text()
    effects = json.JSONDecoder().raw_decode(page, re.search(r'"effects":(?={)', page).end())[0]  # type: ignore[union-attr]
    assert set(effects) == {"weights.ema", "weights.step", "sampler"}
    # Every other length beside the same step and sampler, drawn from the same noise.
    assert [len(effect["pairs"]) for effect in effects["weights.ema"]] == [6, 6]
    assert [len(effect["pairs"]) for effect in effects["weights.step"]] == [6, 6]


def test_a_length_and_a_step_that_are_not_kept_are_refused_before_anything_runs(tmp_path: Path) -> None:
    for word, message in (
        ("weights.step=20,25", "weights.step=25 is no step that the training keeps: set training.keep=[20,25,30]"),
        ("weights.ema=0.05,0.5", "weights.ema=0.5 must be below 0.289"),
        ("weights.step=last,beast", "weights.step=beast must be a whole number, last, best or null"),
    ):
        words = [one for one in SWEEP if one.partition("=")[0] != word.partition("=")[0]]
        done = run(tmp_path, command("-m", *words, word), expect=2, **brake.environment(tmp_path / "none"))
        assert message in done.stderr
        assert not list(tmp_path.glob("runs/fits/*"))
