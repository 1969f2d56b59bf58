"""Values from the environment may be secrets: no record holds them, and who builds from a record still gets them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import forked_runs
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.environment import recorded, revealed
from diffsweep.sweep.store.signature import resolved
from tiny import TINY

ROOT = Path(__file__).parents[1]
SECRET = "s3cret-of-mine"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"a": "${oc.env:SECRET}"}, {"a": "${oc.env:SECRET}"}),
        ({"a": "${ oc.env : SECRET }/x"}, {"a": "${oc.env:SECRET}/x"}),
        ({"a": "${oc.env:SECRET}-${b}", "b": 3}, {"a": "${oc.env:SECRET}-3", "b": 3}),
        ({"a": "${b}", "b": "${oc.env:SECRET}"}, dict.fromkeys("ab", "${oc.env:SECRET}")),
        ({"a": ["x", {"b": "${oc.env:SECRET}"}]}, {"a": ["x", {"b": "${oc.env:SECRET}"}]}),
        ({"a": "${oc.env:ABSENT,'it\\'s, so'}"}, {"a": "${oc.env:ABSENT,'it\\'s, so'}"}),
        ({"a": "${oc.env:ABSENT,null}"}, {"a": "${oc.env:ABSENT,null}"}),
        ({"a": "${oc.decode:${oc.env:NUMBER}}"}, {"a": "${oc.decode:${oc.env:NUMBER}}"}),
        ({"a": "${oc.decode:'[1,2]'}", "b": "${oc.env:NUMBER}"}, {"a": [1, 2], "b": "${oc.env:NUMBER}"}),
        ({"a": {"b": "${..c}"}, "c": 1}, {"a": {"b": 1}, "c": 1}),
    ],
)
def test_an_expression_is_recorded_and_means_the_same(
    config: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("NUMBER", "12")
    cfg = OmegaConf.create(config)
    found = recorded(cfg)
    assert found == expected
    assert resolved(OmegaConf.create(found)) == resolved(cfg)
    assert revealed(found) == resolved(cfg)
    monkeypatch.delenv("SECRET")
    assert revealed({"a": "${oc.env:SECRET}"}) == {"a": "${oc.env:SECRET}"}


WORDS = [
    *TINY,
    "training.steps=20",
    "logger=wandb",
    "logger.wandb.mode=offline",
    "logger.wandb.project=${oc.env:SECRET}",
    "paths.cache=${oc.env:FOLDER}/cache",
    "evaluation.reference=${oc.env:REFERENCE}",
]


@pytest.mark.parametrize("several", [False, True], ids=["run", "sweep"])
def test_no_file_of_a_run_holds_a_value_from_the_environment(
    several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"SECRET": SECRET, "FOLDER": str(tmp_path / "hidden-place"), "REFERENCE": "test"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    words = ["-m", *WORDS, "sampler=ddim,heun"] if several else WORDS
    done = forked_runs.run([str(ROOT / "train.py"), *words], tmp_path, os.environ, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (fit,) = tmp_path.glob("runs/fits/*")
    for path in [fit / "config.yaml", *fit.glob("cells/*/config.yaml")]:
        text = path.read_text()
        assert "project: ${oc.env:SECRET}" in text
        assert "cache: ${oc.env:FOLDER}/cache" in text
        assert "reference: ${oc.env:REFERENCE}" in text
    assert list((tmp_path / "hidden-place" / "cache").iterdir()), "the value itself was used"
    for path in (tmp_path / "runs").rglob("*"):
        # W&B's own file names the project that a run belongs to.
        if path.is_file() and path.suffix not in (".wandb", ".log") and "wandb" not in path.parts:
            assert SECRET.encode() not in path.read_bytes(), path
            assert b"hidden-place" not in path.read_bytes(), path
    (result,) = [json.loads(path.read_text()) for path in fit.glob("cells/*/result.json")][:1]
    assert result["reference_split"] == "test"
    if several:
        (folder,) = tmp_path.glob("runs/sweeps/*")
        plan = Plan.read(folder)
        assert plan.part(next(iter(plan.cells)), "logger")["wandb"]["project"] == SECRET
        again = forked_runs.run(["-m", "diffsweep", "resume", folder.name], tmp_path, os.environ, timeout=300)
        assert again.returncode == 0, again.stderr
