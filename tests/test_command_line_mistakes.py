"""Mistakes in a command line, as a user makes them: exit code 2, one line that names the key, no traceback."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import forked_runs
from tiny import TINY

ROOT = Path(__file__).parents[1]
HUGE = "9" * 400


def train(folder: Path, *words: str, **env: str) -> tuple[int, str, str]:
    (folder / "conf").symlink_to(ROOT / "conf")
    arguments = [str(ROOT / "train.py"), *words]
    done = forked_runs.run(arguments, folder, os.environ | {"OMP_NUM_THREADS": "1"} | env, timeout=300)
    return done.returncode, done.stdout, done.stderr


REFUSED = {
    "logger=null": r"logger=null names no option: did you mean logger=none\? \(--help lists all options\)",
    "experiment=null": "experiment=null names no option: choose one of fashion_mnist, .* or toy .*",
    "sampler=3": r"sampler=3 names no option \(--help lists all options\)",
    "-m sampler=ddim,3": r"sampler=ddim,3 names no option \(--help lists all options\)",
    "sampler=hein": r"sampler=hein does not exist: did you mean heun\? \(--help lists all options\)",
    "-m sampler=ddim,hein": r"sampler=hein does not exist: did you mean heun\? \(--help lists all options\)",
    "-m hydra/launcher=slrm": r"hydra/launcher=slrm does not exist: did you mean slurm\? .*",
    "metric=[acuracy]": r"metric=acuracy does not exist \(--help lists all options\)",
    "sampler.nfee=3": r"there is no key sampler.nfee: did you mean sampler.nfe, .*\? \(--cfg job shows all keys\)",
    "-m training.stpes=3,4": r"there is no key training.stpes: did you mean training.steps, .* shows all keys\)",
    "optimizer.amsgrd=true": "there is no key optimizer.amsgrd: did you mean optimizer.amsgrad.*",
    "sweep=few_steps": r"sweep=few_steps is no name: sweep.name=NAME names a sweep, and \+sweeps=NAME .*",
    "-m hydra.launcher.jobz=3": r"there is no key hydra.launcher.jobz: did you mean hydra.launcher.jobs.*",
    "sampler=ddim,heun": r"sampler=ddim,heun has several values: -m compares them; one list is KEY=\[A,B\]",
    "sampler=[ddim,heun]": "sampler=.ddim,heun.: a run has one sampler; to compare several: -m sampler=ddim,heun",
    "-m schedule=[cosine,laplace]": "schedule=.cosine,laplace.: a run has one schedule; .*",
    "--sampler=ddim": r"--sampler is no option: an override has no dashes, as sampler=ddim \(--hydra-help lists them\)",
    "--multirn sampler=ddim,heun": r"--multirn is no option: did you mean --multirun\? .*",
    "-m optimizer.lr=1e-3, 1e-4": "optimizer.lr=1e-3, has a comma without a value .*: write optimizer.lr=A,B.*",
    "-m seed=1,,2": "seed=1,,2 has a comma without a value on either side: write seed=A,B, without spaces",
    "-m seed=range(1,3": r"seed=range\(1,3 has not as many \( as \): put the whole word into single quotes",
    "-m seed=range(1,3,0)": r"seed=range\(1,3,0\): range.. arg 3 must not be zero",
    "seed='1": "seed='1 has a quotation mark without its other one",
    "seed={1,2}": "cannot read seed=.1,2.: no viable alternative at input .*",
    "mode=plan sampler.nfe=ten": "sampler.nfe=ten must be a whole number",
    "sampler.nfe=inf": "sampler.nfe=inf.* must be a .* number.*",
    "-m hydra/sweeper=optuna sampler.nfe=interval(5,50)": "sampler.nfe=21.55.* must be a whole number",
    "~samplr": r"there is no key samplr to delete \(--cfg job shows all keys\)",
    "+sampler=heun": "sampler is chosen already: write sampler=NAME",
    "+training.steps=3": "training.steps is there already: write training.steps=VALUE to change it",
    "diffuser/weight=x diffuser=consistency": "diffuser/weight is no choice of this configuration .*",
    "training.steps": ".*training.steps sets nothing: write KEY=VALUE or GROUP=OPTION",
    "~sampler": "sampler is missing of a run: choose one, as sampler=NAME .*",
    "~training": r"training is no choice that can be left out \(--help lists all groups\)",
    "ema=null": "ema=null is no part of a run.*",
    "-m ema=null": "ema=null is no part of a run.*",
    "paths.runs=2026": "paths.runs=2026 must name a folder",
    "paths.runs=''": "paths.runs= must name a folder",
    "paths.runs=/proc/nothing/runs": ".*/proc/nothing.* cannot be .*",
    "-m paths.runs=/proc/nothing/runs": ".*/proc/nothing.* cannot be .*",
    "seed=${oc.env:NOT_SET_HERE}": ".*seed.*NOT_SET_HERE.*",
    "-m seed=${oc.env:NOT_SET_HERE}": ".*seed.*NOT_SET_HERE.*",
    "paths.runs=${oc.env:NOT_SET_HERE}": ".*paths.runs: the environment variable NOT_SET_HERE is not set",
    "-m paths.runs=${oc.env:NOT_SET_HERE}": "paths.runs needs the environment variable NOT_SET_HERE, which is not set",
    "trainer.checkpoint_seconds=null": "trainer.checkpoint_seconds=null must be a number.*",
    f"training.steps={HUGE}": r"training.steps=9+\.\.\. must be a whole number of at most 63 bits.*",
    f"evaluation.samples={HUGE}": r"evaluation.samples=9+\.\.\. must be .*",
    f"seed=-{HUGE}": r"seed=-9+\.\.\. must be .*",
    "optimizer.lr=1e400": "optimizer.lr=inf.*",
    "-m hydra.launcher.jobs=abc": "hydra.launcher.jobs=abc must be a whole number, 1 or more",
    "-m hydra.launcher.retries=true": "hydra.launcher.retries=true must be a whole number, 0 or more",
}


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[:40])
def test_a_mistake_is_one_line_that_names_the_key(words: str, tmp_path: Path) -> None:
    code, out, err = train(tmp_path, *words.split())
    assert (code, out) == (2, ""), out + err
    assert len(err.splitlines()) == 1, err
    assert re.fullmatch(REFUSED[words], err.strip()), err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize("several", [[], ["-m"]], ids=["run", "sweep"])
def test_a_stray_rank_is_named(several: list[str], tmp_path: Path) -> None:
    code, _, err = train(tmp_path, *several, "seed=1", LOCAL_RANK="abc")
    assert code == 2
    assert err.startswith("the environment has LOCAL_RANK=abc")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("program", [[str(ROOT / "train.py"), "mode=plan"], ["-m", "diffsweep", "status"]])
def test_a_working_folder_that_is_gone_is_said(program: list[str], tmp_path: Path) -> None:
    import subprocess
    import sys

    gone = tmp_path / "gone"
    gone.mkdir()
    there = f"cd {gone} && rmdir {gone} && exec "
    command = " ".join(map("'{}'".format, [sys.executable, *program]))
    done = subprocess.run(["bash", "-c", there + command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "the working folder is gone (deleted or moved): cd to one that is there\n"


def test_the_configs_of_a_sweeps_cells_are_shown(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    words = ["-m", *TINY, "sampler=ddim,heun", "training.steps=20,30", "--cfg", "job"]
    code, out, err = train(tmp_path, *words, "paths.cache=${oc.env:PLACE}", PLACE="/hidden")
    assert (code, err) == (0, "")
    documents = [OmegaConf.create(text.partition("\n")[2]) for text in out.split("--- # ")[1:]]
    assert [(one.training.steps, one.sampler.solver._target_.rpartition(".")[2]) for one in documents] == [
        (20, "Euler"),
        (30, "Euler"),
        (20, "Heun"),
        (30, "Heun"),
    ]
    assert "/hidden" not in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "doubt"),
    [
        (["training.steps=20", "training.warmup=20"], "training.warmup=20 is not shorter than the training"),
        (["training.steps=20", "validation=curve"], "validation.every=300 is more than training.steps=20"),
        (["training.steps=20", "training.batch_size=5000"], "training.batch_size=5000 is 5 times the data"),
        (["training.steps=20", "optimizer.lr=0"], "optimizer.lr=0 trains nothing"),
    ],
)
def test_what_is_hardly_meant_is_warned_of(words: list[str], doubt: str, tmp_path: Path) -> None:
    for index, several in enumerate(([], ["-m"])):
        (tmp_path / str(index)).mkdir()
        _, _, err = train(tmp_path / str(index), *several, *TINY, *words, "mode=plan")
        assert err.count(doubt) == 1, err
        assert "Traceback" not in err


def test_1e4_is_a_whole_number(tmp_path: Path) -> None:
    code, _, err = train(tmp_path, *TINY, "training.steps=1e1", "training.warmup=2", "evaluation.samples=6.4e1")
    assert code == 0
    # Nothing but how large the network is.
    assert re.fullmatch(r"fit \w+: a network of .*\n", err)
