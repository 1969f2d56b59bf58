"""Models to and from Hugging Face's hub by `hf://OWNER/NAME`, against a hub on this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import checkpoints_made
import forked_runs
from diffsweep.runs.pretrained import find
from hub_server import hub


def diffsweep(folder: Path, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`diffsweep WORD ...` in a process that has not imported the client yet, which then reads the address."""
    own = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    env = kept | own | {"HF_TOKEN": "none", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return forked_runs.run(["-m", "diffsweep", *words], folder, env, 300)


@pytest.mark.slow
def test_a_model_is_sent_to_a_hub_and_fetched_again(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    with hub(root) as address:
        done = diffsweep(tmp_path, address, "import", str(checkpoints_made.ddpm()), "--dataset", "digits")
        assert done.returncode == 0, done.stderr
        (fit,) = (path.name for path in tmp_path.glob("runs/fits/*"))
        done = diffsweep(tmp_path, address, "export", fit, "hf://me/mine")
        assert done.returncode == 0, done.stderr
        assert (root / "me/mine/README.md").read_text().startswith("---")
        assert (root / "me/mine/model_index.json").is_file()
        done = diffsweep(tmp_path, address, "import", "hf://me/mine", "--dataset", "digits", "--runs", "others")
        assert done.returncode == 0, done.stderr
        weights = [path.read_bytes() for path in tmp_path.glob("*/fits/*/checkpoints/ema.safetensors")]
        assert len(weights) == 2
        assert weights[0] == weights[1]
    # Without the hub: what was fetched is in its cache, and nothing can be sent.
    plan = diffsweep(tmp_path, address, "plan", "pretrained=hf://me/mine", "dataset=digits", "sampler=ddim,heun")
    assert plan.returncode == 0, plan.stderr
    assert "2 cells of 1 imported model" in plan.stdout + plan.stderr
    refused = diffsweep(tmp_path, address, "export", fit, "hf://me/other")
    assert refused.returncode == 2, refused.stderr
    (line,) = refused.stderr.splitlines()
    assert line.startswith("diffsweep: hf://me/other cannot be sent to (")


def test_what_is_not_there_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("no connection. Try again")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ValueError, match=r"^pretrained=hf://a/b: hf://a/b cannot be fetched \(no connection\): where"):
        find("hf://a/b", "runs")
