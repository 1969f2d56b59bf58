"""A runs folder that version 0.1 has written is read, shown, sampled and continued, and its numbers stay.

`data/runs_of_0.1.tar.gz` holds

    runs/           a sweep, named `old`: samplers ddim and heun, schedules cosine, linear and sigmoid. The cell of heun
                    and linear is missing, and the training with sigmoid was interrupted. Its configs name a callback,
                    a logger, an optimizer, a validation and a classifier of this package. A search, named `search`,
                    that was stopped after two of its four trials. A single run on points.
    results.json    what `diffsweep results --format json` said, but for NAME_jackknife; of cells that are missing in
                    runs/, when the same commands were not interrupted
    samples.npz     the first samples of ddim and linear, as `diffsweep sample` drew them

Absolute paths in it are written as @CWD@ (where the commands were given) and @CONF@.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forked_runs
from diffsweep import results

ROOT = Path(__file__).parent.parent
ARCHIVE = Path(__file__).parent / "data" / "runs_of_0.1.tar.gz"
# Seconds that a command may take on a machine that is busy with other things; on an idle one none takes ten.
PATIENCE = 400
INTERRUPTED = ("heun", "sigmoid")

Result = dict[str, Any]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands were given; for reading only."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def cwd(old: Path, tmp_path: Path) -> Path:
    """Another such folder, with the paths that belong to it."""
    folder = tmp_path / "old"
    shutil.copytree(old, folder)
    for file in (*folder.glob("runs/sweeps/*/*.json"), *folder.glob("runs/sweeps/*/*.yaml")):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("@CWD@", str(folder)).replace("@CONF@", str(ROOT / "conf")), encoding="utf-8")
    return folder


def said(folder: Path, *command: str) -> str:
    """The output of `python COMMAND`; what goes to stderr comes first."""
    done = forked_runs.run(command, folder, {**os.environ, "OMP_NUM_THREADS": "1"}, PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


def diffsweep(folder: Path, *words: str) -> str:
    return said(folder, "-m", "diffsweep", *words)


def known(old: Path) -> dict[str, Result]:
    """Every cell's result as the old version showed it, by the cell's name."""
    return {result["cell"]: result for result in json.loads((old / "results.json").read_text(encoding="utf-8"))}


def shown(folder: Path) -> dict[str, Result]:
    table = json.loads(diffsweep(folder, "results", "--format", "json"))
    return {
        result["cell"]: {key: value for key, value in result.items() if not key.endswith("_jackknife")}
        for result in table
    }


def finished(folder: Path) -> set[str]:
    return {file.parent.name for file in folder.glob("runs/fits/*/cells/*/result.json")}


def test_results_show_the_numbers_of_then(old: Path) -> None:
    assert len(finished(old)) == 6
    assert shown(old) == {cell: result for cell, result in known(old).items() if cell in finished(old)}


def test_results_in_python_are_found(old: Path) -> None:
    then = {cell: result for cell, result in known(old).items() if cell in finished(old)}
    table = results.load(old / "runs", "dataset=digits")
    assert set(table["cell"]) == {cell for cell, result in then.items() if result["dataset"] == "digits"}
    for row in table.to_dict("records"):
        assert row["fd_digits"] == then[row["cell"]]["fd_digits"]
        assert results.find(row, old / "runs").signature == row["cell"]
    last = max(then.values(), key=lambda result: result["created"])
    assert results.find("last", old / "runs").signature == last["cell"]


def test_status_tells_what_is_missing(cwd: Path) -> None:
    text = diffsweep(cwd, "status", "old")
    assert "3/6 cells" in text
    assert "2/3 trainings" in text


def test_a_report_has_the_numbers_of_then(cwd: Path, old: Path) -> None:
    diffsweep(cwd, "report", "old")
    text = (cwd / "runs" / "sweeps" / "old" / "report.html").read_text(encoding="utf-8")
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    for cell, result in known(old).items():
        if result["dataset"] == "digits" and cell in finished(old):
            assert json.dumps(result["fd_digits"]) in found[1]


def test_samples_are_drawn_as_then(cwd: Path, old: Path) -> None:
    (cell,) = (
        cell for cell, result in known(old).items() if (result["sampler"], result["schedule"]) == ("ddim", "linear")
    )
    diffsweep(cwd, "sample", cell[:8], "-n", "12", "--device", "cpu", "--out", "drawn")
    now, then = np.load(cwd / "drawn" / "samples.npz"), np.load(old / "samples.npz")
    assert sorted(now) == sorted(then)
    for name in now:
        # Other processors round otherwise, and a sample is stored in whole numbers.
        assert np.abs(now[name].astype(int) - then[name].astype(int)).max() <= 1


def check_continued(folder: Path, old: Path) -> None:
    """Cells of then are as they were; those that were missing have the numbers of an undisturbed sweep."""
    now, then = shown(folder), known(old)
    for cell, result in now.items():
        if cell in finished(old):
            assert result == then[cell]
            continue
        assert set(then[cell]) <= set(result)
        for key in (result["metric"], f"{result['metric']}_floor", "nfe", "parameters", "steps", "fit_steps"):
            assert result[key] == pytest.approx(then[cell][key], rel=0.02), (cell, key)


def check_checkpoint_was_understood(folder: Path, old: Path, log: str) -> None:
    """Every callback found its state: the best weights were those of step 90, and the checkpoint has them."""
    assert "callbacks used to create the checkpoint" not in log
    (result,) = (result for result in known(old).values() if (result["sampler"], result["schedule"]) == INTERRUPTED)
    done = json.loads((folder / "runs" / "fits" / result["fit"] / "done.json").read_text(encoding="utf-8"))
    assert (done["best_step"], done["kept"]) == (90, "best")
    assert result["fit_kept_step"] == 90


def test_all_of_it_is_sent_to_wandb(cwd: Path, old: Path) -> None:
    """Offline, which needs no server: each training with every line of its metrics, each cell once."""
    out = diffsweep(cwd, "wandb-sync", "--offline")
    assert "Traceback" not in out
    records = list(old.glob("runs/fits/*/cells/*/result.json"))
    logged = [line.split() for line in out.splitlines() if line.startswith(("fit ", "cell "))]
    assert {words[1] for words in logged if words[0] == "cell"} == {path.parent.name for path in records}
    done = {path.parent.name for path in old.glob("runs/fits/*/done.json")}
    assert done <= {words[1] for words in logged if words[0] == "fit"}
    assert len(logged) == len({tuple(words[:2]) for words in logged})
    assert all("logged (offline)" in line for line in out.splitlines() if line.startswith("cell "))
    again = diffsweep(cwd, "wandb-sync", "--offline")
    lines = [line for line in again.splitlines() if line.startswith(("fit ", "cell "))]
    # A training that was interrupted may go on.
    assert {line.split()[1] for line in lines if "complete already" not in line}.isdisjoint(
        {*done, *(path.parent.name for path in records)}
    )


def test_a_sweep_is_resumed_with_its_plan_and_its_checkpoint(cwd: Path, old: Path) -> None:
    diffsweep(cwd, "resume", "old")
    logs = (log.read_text(encoding="utf-8") for log in (cwd / "runs" / "sweeps" / "old" / "logs").glob("fit-*.log"))
    (log,) = (log for log in logs if "going on from its checkpoint" in log)
    check_checkpoint_was_understood(cwd, old, log)
    check_continued(cwd, old)
    assert sum(result["dataset"] == "digits" for result in shown(cwd).values()) == 6
    assert (cwd / "runs" / "sweeps" / "old" / "report.html").exists()


def test_a_search_is_resumed_with_its_space_and_its_settings(cwd: Path, old: Path) -> None:
    text = diffsweep(cwd, "resume", "search")
    assert "4 complete" in text
    check_continued(cwd, old)
    assert sorted(result["fit_steps"] for result in shown(cwd).values() if result["seed"] == 1) == [40, 50, 60, 70]


def test_the_same_command_finds_what_is_done_and_goes_on_from_the_checkpoint(cwd: Path, old: Path) -> None:
    (points,) = (result for result in known(old).values() if result["dataset"] == "mixture" and result["seed"] == 0)
    # The default sampler was another one then.
    assert "already done" in said(cwd, str(ROOT / "train.py"), *points["overrides"].split(), "sampler=dpmpp_2m")
    plan = json.loads((cwd / "runs" / "sweeps" / "old" / "plan.json").read_text(encoding="utf-8"))
    words = [word for word in plan["tasks"][0]["overrides"] if word.partition("=")[0] not in ("sampler", "schedule")]
    # Labels are a condition now, and a model that is told nothing else has the name that it had.
    words = ["condition=label" if word.startswith("backbone.classes=") else word for word in words]
    text = said(cwd, str(ROOT / "train.py"), *words, "sampler=heun", "schedule=sigmoid")
    assert "going on from its checkpoint" in text
    check_checkpoint_was_understood(cwd, old, text)
    check_continued(cwd, old)
    assert len(finished(cwd)) == 7
