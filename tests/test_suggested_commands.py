"""What a run suggests to type next is what was typed, with one change, and works where the user is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forked_runs
from diffsweep.report.next_commands import next_commands
from diffsweep.sweep.store.override_words import joined, option_folders, split
from diffsweep.sweep.store.result import Result
from tiny import TINY

ROOT = Path(__file__).parent.parent
PATIENCE = 400
SETUP = 'resources.fit.setup=["export A_FLAG=1","x=2 y"]'


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_words_come_back_as_they_were(words: list[str]) -> None:
    assert split(joined(words)) == words


def test_results_of_version_0_1_are_split_where_an_override_begins() -> None:
    text = "a=1 +b.c=[1, 2]  ++d/e@f=x y ~g h='{k: v}'"
    assert split(text) == ["a=1", "+b.c=[1, 2]", "++d/e@f=x y", "~g", "h='{k: v}'"]
    assert split("") == []


def test_every_suggestion_holds_every_word_but_the_one_that_it_changes() -> None:
    words = ["hydra.searchpath=[file:///my options]", SETUP, "metric=[frechet,kernel]", "+training.x='a b=c'"]
    result = {"overrides": joined(words), "sampler": "ddim", "schedule": "cosine", "nfe_asked": 20, "nfe": 20}
    for command, _ in next_commands(Result.parse(result)):
        assert set(words) <= set(shlex.split(command)), command


def test_the_folders_of_options_are_part_of_a_command() -> None:
    sources = [{"provider": "main", "path": "/p/conf"}, {"provider": "command-line", "path": "/my own/options"}]
    typed = ["hydra.searchpath=[file:///x]", "hydra.job.chdir=true"]
    hydra = {"runtime": {"config_sources": sources}, "overrides": {"hydra": typed}}
    assert option_folders(hydra) == ["--config-dir=/my own/options", "hydra.searchpath=[file:///x]"]
    assert option_folders({}) == []


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = forked_runs.run([str(ROOT / "train.py"), *words], folder, {**os.environ, "OMP_NUM_THREADS": "1"}, PATIENCE)
    assert done.returncode == 0, done.stderr
    return done


def suggested(said: str, purpose: str) -> list[str]:
    lines = said.splitlines()
    (place,) = (number for number, line in enumerate(lines) if purpose in line)
    return shlex.split(lines[place - 1])[2:]


@pytest.mark.slow
def test_a_suggested_command_reuses_the_training_whatever_folder_hydra_runs_in(tmp_path: Path) -> None:
    options = tmp_path / "my options" / "schedule"
    options.mkdir(parents=True)
    (options / "own.yaml").write_text((ROOT / "conf/schedule/cosine.yaml").read_text())
    folder = f"--config-dir={options.parent}"
    elsewhere = ["hydra.job.chdir=true", "hydra.run.dir=outputs"]
    first = python(tmp_path, folder, *TINY, "training.steps=20", "schedule=own", SETUP, *elsewhere)
    twice = suggested(first.stdout, "twice the network calls")
    assert {folder, SETUP, "schedule=own"} <= set(twice)
    again = python(tmp_path, *twice)
    assert len(list(tmp_path.glob("runs/fits/*"))) == 1
    pictures = re.findall(r"runs/\S+\.png", first.stdout + again.stdout)
    assert len(pictures) == 2
    assert all((tmp_path / picture).is_file() for picture in pictures)
    # So does what a sweep says, whose cells were given no folder.
    swept = python(tmp_path, "-m", folder, *TINY, "training.steps=20", "schedule=own", SETUP, "sampler=ddim,heun")
    better = suggested(swept.stdout, "twice the network calls")
    assert {folder, SETUP, "schedule=own"} <= set(better)
    python(tmp_path, *better)
    assert len(list(tmp_path.glob("runs/fits/*"))) == 1


def test_a_plan_says_what_tells_its_trainings_apart(tmp_path: Path) -> None:
    swept = ["optimizer.lr=0.001,0.02", "sampler=ddim,heun", "mode=plan"]
    lines = [line for line in python(tmp_path, "-m", *TINY, *swept).stdout.splitlines() if " train " in line]
    told = [re.findall(r"\((.*)\)  for 2 cells", line) for line in lines]
    assert told == [["optimizer.lr=0.001"], ["optimizer.lr=0.02"]]
