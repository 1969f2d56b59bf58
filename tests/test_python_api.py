"""`diffsweep.run` and `diffsweep.sweep`: what the command line does, from Python, with results that show themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

import diffsweep
from diffsweep import caller
from diffsweep.results import progress
from diffsweep.results.shown import RunResult, SweepTable
from diffsweep.sweep.store.result import Result
from processes import loaded
from tiny import TINY

HOSTILE = '<img src=x onerror="alert(1)">&'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("from_python")


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def first(folder: Path) -> RunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return diffsweep.run(*TINY, "sampler=ddim", progress=False)


@pytest.fixture(scope="module")
def table(folder: Path, first: RunResult) -> SweepTable:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return diffsweep.sweep(*TINY, "sampler=ddim,heun", progress=False)


def test_a_run_is_the_one_of_the_command_line(first: RunResult) -> None:
    words = [sys.executable, "-m", "diffsweep", "train", *TINY, "sampler=ddim"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    assert "already done" in done.stderr
    assert str(first.cell.result_file.relative_to(Path.cwd())) in done.stdout
    assert first.value == first.result.main.value
    assert first.metric in repr(first)
    assert first.samples.is_file()


def test_a_sweep_shares_the_training_and_what_is_finished(first: RunResult, table: SweepTable) -> None:
    assert set(table.fit) == {first.result.fit}
    assert set(table.sampler) == {"ddim", "heun"}
    assert first.result.cell in set(table.cell)
    values = list(table[first.metric])
    assert values == sorted(values)
    assert not table.failures
    assert (table.plan.folder / "report.html").is_file()


def test_a_table_is_one_of_pandas_and_a_part_of_it_an_ordinary_one(table: SweepTable) -> None:
    assert isinstance(table, pd.DataFrame)
    part = table[["sampler", "nfe"]]
    assert type(part) is pd.DataFrame
    assert repr(table).splitlines()[1].endswith(f"sampler={table.sampler[0]}")
    assert type(table.query("nfe > 0")) is pd.DataFrame


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler=huen"], "sampler=huen does not exist: did you mean heun?"),
        (["sampler.nef=3"], "there is no key sampler.nef: did you mean sampler.nfe"),
        (["mode=plan", "seed=99"], "mode=plan runs nothing"),
        (["mode=sometimes"], "mode=sometimes is unknown"),
    ],
)
def test_a_mistake_is_the_line_of_the_command_line(
    words: list[str], said: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(folder.rglob("*"))
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        diffsweep.run(*TINY, *words)
    assert set(folder.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


def test_a_mistake_of_a_sweep_is_raised_before_anything_is_written(folder: Path) -> None:
    before = set(folder.rglob("*"))
    with pytest.raises(ValueError, match="sampler=huen does not exist"):
        diffsweep.sweep(*TINY, "sampler=ddim,huen")
    with pytest.raises(ValueError, match="no text"):
        diffsweep.sweep(3)  # type: ignore[arg-type]
    assert set(folder.rglob("*")) == before


NETWORK = """
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x, logsnr, condition=None):
        if len(x) == 31:
            raise RuntimeError("no batches of 31")
        return self.layer(x)
"""


def test_a_run_that_fails_says_why_and_where(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.py").write_text(NETWORK)
    own = ["dataset=mixture", "backbone=module", "backbone.network={_target_: broken.Network}"]
    with pytest.raises(RuntimeError, match=r"no batches of 31 \(see .*fits"):
        diffsweep.run(*own, "training.batch_size=31", "training.steps=3", "training.warmup=0")
    # As on the command line.
    assert "no batches of 31" in capfd.readouterr().err


def test_results_show_themselves_with_samples(first: RunResult, table: SweepTable) -> None:
    one = first._repr_html_()
    assert one.count("<img ") == 1
    assert 'src="data:image/webp;base64,' in one
    assert f'<th style="text-align: left">{first.metric}</th>' in one
    assert "real data reach" in one
    every = table._repr_html_()
    assert every.count("<img ") == 2
    assert "2 cells of 1 training" in unescape(every)
    assert str(Path.cwd()) not in one + every


def test_every_text_in_them_is_escaped(first: RunResult, table: SweepTable) -> None:
    values = dict(first.result.values) | {"sampler": HOSTILE, "note": HOSTILE, "metric": first.metric}
    hostile = RunResult(first.cell, Result.parse(values))
    other = SweepTable(table)
    object.__setattr__(other, "plan", replace(table.plan, folder=Path(HOSTILE.replace("/", ""))))
    object.__setattr__(other, "found", [hostile.result, *table.found])
    object.__setattr__(other, "failures", {"a": HOSTILE})
    for shown in (hostile._repr_html_(), other._repr_html_()):
        assert "<img src=x" not in shown
        assert "&lt;img src=x onerror=" in shown


class _Script:
    """A process that tells what a run would, and waits until it is looked at."""

    def __init__(self, note: Path, told: dict[str, str], said: str) -> None:
        code = f"import sys; print({said!r}, file=sys.stderr, flush=True); sys.stdin.read()"
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)  # type: ignore[call-overload]
        self.shown: list[str] = []
        self.note = note
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DIFFSWEEP_CALLER", str(note))
            caller.tell(**told)

    def watch(self) -> list[str]:
        def display(text: str) -> None:
            self.shown.append(text)
            assert self.process.stdin is not None
            if not self.process.stdin.closed:
                self.process.stdin.close()

        progress.watch(self.process, self.note, display)
        return self.shown


def test_a_notebook_shows_how_far_a_training_is(tmp_path: Path) -> None:
    fit = tmp_path / "fits" / "f"
    fit.mkdir(parents=True)
    (fit / "status.json").write_text('{"state": "running", "step": 120, "steps": 300, "loss": 0.25}')
    shown = _Script(
        tmp_path / "n.json", {"fit": "f", "cell": "c", "runs": str(tmp_path)}, f"careful: {HOSTILE}"
    ).watch()
    assert shown[0] == '<div><progress value="120" max="300"></progress> step 120 of 300, loss 0.2500</div>'
    assert "done in " in shown[-1]
    assert "careful: &lt;img src=x" in shown[-1]


def test_a_notebook_shows_the_view_of_a_sweep(table: SweepTable, tmp_path: Path) -> None:
    told = {"folder": str(table.plan.folder), "runs": str(table.plan.runs)}
    shown = _Script(tmp_path / "n.json", told, "").watch()
    assert "2/2 cells done" in re.sub("<[^>]*>", "", shown[0])


def test_outside_of_a_notebook_there_is_no_display() -> None:
    assert progress.notebook_display() is None


def test_the_package_loads_nothing_heavy() -> None:
    names, _ = loaded("import", "diffsweep")
    assert not names & {"torch", "pandas", "hydra", "omegaconf", "numpy"}
