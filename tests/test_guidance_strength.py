"""How strong a guidance is: measured, and said where a kind of guidance may have won by that only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsweep import commands
from diffsweep.evaluation.images import read_images
from diffsweep.report.guidance_strength import strength_notes, strength_text
from diffsweep.sweep.store.result import Result
from finished_runs import CONF, DIGITS, finish


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("project")
    (project / "conf").symlink_to(CONF)
    return project


@pytest.mark.slow
def test_it_is_how_far_samples_are_from_those_without_guidance(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, small = project / "runs", [*DIGITS, "sampler=ddim"]
    free = finish(runs, *small)
    assert "guidance_strength" not in free
    made = {scale: finish(runs, *small, "guidance=cfg", f"guidance.scale={scale}") for scale in (1, 2, 6)}
    strengths = [made[scale]["guidance_strength"] for scale in (1, 2, 6)]
    # A scale of 1 is no guidance: what is left is the rounding of pixels.
    assert strengths[0] < 0.01 < strengths[1] < strengths[2]
    monkeypatch.chdir(project)
    for name, cell in (("free", free["cell"]), ("guided", made[6]["cell"])):
        assert commands.main(["sample", cell, "-n", "32", "--out", name, "--device", "cpu"]) == 0
    a, b = (read_images(f"{name}/samples.npz").x.numpy() / 127.5 for name in ("free", "guided"))
    from diffsweep.data.digits import Digits

    assert strengths[2] == pytest.approx(np.sqrt(((a - b) ** 2).mean()) / Digits().sigma_data, rel=0.02)
    capsys.readouterr()
    finish(runs, *small, "guidance=rescaled", "guidance.scale=2")
    assert commands.main(["results"]) == 0
    assert " strength " in capsys.readouterr().out


def cell(kind: str, value: float, strength: float | None) -> Result:
    record: dict[str, Any] = {"cell": f"{kind}{value}", "guidance": kind, "metric": "fd", "fd": value}
    return Result.parse(record | ({} if strength is None else {"guidance_strength": strength}))


def test_a_kind_that_was_only_tried_weaker_or_stronger_is_named() -> None:
    best = cell("cfg", 1.0, 0.8)
    none = cell("none", 3.0, None)
    assert strength_notes([best, none]) == []
    assert strength_notes([best, cell("cfg", 2.0, 0.1)]) == []
    (line,) = strength_notes([best, cell("apg", 2.0, 0.2), cell("apg", 2.5, 0.5), none])
    assert "guidance=cfg is first at strength 0.80, and guidance=apg was tried up to 0.50 only" in line
    assert "a larger scale" in line
    (line,) = strength_notes([best, cell("apg", 2.0, 1.2)])
    assert "was tried from 1.2 only" in line
    assert "a smaller scale" in line
    # Tried on both sides of it, or as strong: what is better is better.
    assert strength_notes([best, cell("apg", 2.0, 0.2), cell("apg", 2.5, 1.5)]) == []
    assert strength_notes([best, cell("apg", 2.0, 0.82)]) == []
    assert strength_notes([none, best]) == []
    assert [strength_text(one) for one in (best, none)] == ["0.80", ""]
