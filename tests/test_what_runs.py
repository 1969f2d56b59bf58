"""What is recorded is what ran, and what cannot run as it is asked for is refused before it costs anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import diffsweep.evaluation.reference as reference
from diffsweep import results
from diffsweep.data.modality import IMAGES
from diffsweep.data.moons import Moons
from diffsweep.evaluation.identity import identity
from diffsweep.runs.build import Components
from diffsweep.runs.external import read
from diffsweep.runs.resample import FreshSamples, write
from diffsweep.runs.stages import complete
from diffsweep.sweep.store.record import Run, read_metrics
from forked_runs import run as run_python
from tiny import TINY

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(__file__).parent / "programs"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=[*TINY, *overrides])


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python train.py` in the folder, where options of the user's own lie."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "PYTHONPATH")}
    return run_python([str(ROOT / "train.py"), "--config-dir", "mine", *words], folder, environment, 300)


def own_option(folder: Path, group: str, program: str, text: str) -> None:
    """An option of the user's own, in the folder `mine`, beside the program that has its class."""
    shutil.copy(PROGRAMS / f"{program}.py", folder)
    option = folder / "mine" / group / f"{program}.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed does not run on cpu, where .* choose bf16-mixed"),
        *[
            (f"trainer.precision={name}", rf"trainer.precision={name} .*32-true, bf16-mixed or 16-mixed")
            for name in ("bf16-true", "64-true", "16-true", "16", "bf16", "transformer-engine")
        ],
        *[
            (f"trainer.strategy={name}", rf"trainer.strategy={name} .*auto, ddp")
            for name in ("ddp_spawn", "ddp_notebook")
        ],
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp is not offered, .* runs on GPUs only .*: choose auto or ddp"),
        ("trainer.deterministic=maybe", "trainer.deterministic=maybe must be"),
    ],
)
def test_what_a_device_would_change_is_refused(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Components.of(composed(override))


def test_labels_beside_those_of_the_model_are_refused_before_any_training(tmp_path: Path) -> None:
    yaml = "_target_: one_based_labels.OneBased\nshape: [2]\nclasses: 10\nsigma_data: 1.0\n"
    own_option(tmp_path, "dataset", "one_based_labels", yaml)
    words = ["dataset=one_based_labels", "backbone=mlp", "condition=label", "extractor=moons", "trainer=debug"]
    done = train(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert re.search(r"labels of dataset=one_based.* go from 1 to 10, but .* allows 0 to 9", done.stderr)
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/fits/*/metrics.jsonl"))


def test_an_error_of_a_users_own_solver_shows_where_it_was_raised(tmp_path: Path) -> None:
    yaml = (
        "defaults:\n  - spacing: karras\n  - noise: none\n\n_target_: diffsweep.diffusion.Sampler\n"
        "solver:\n  _target_: failing_solver.Failing\nnfe: 5\n"
    )
    own_option(tmp_path, "sampler", "failing_solver", yaml)
    done = train(tmp_path, *TINY, "sampler=failing_solver", "training.steps=20")
    assert done.returncode != 0
    assert re.search(r'failing_solver.py", line \d+, in aim', done.stderr), done.stderr
    assert "not enough values to unpack" in done.stderr


def test_what_a_diffuser_needs_of_the_network_it_asks_for_itself() -> None:
    for diffuser in ("v", "iddpm", "self_conditioned"):
        one = Components.of(composed(f"diffuser={diffuser}")).scoring.model.denoiser
        assert one(torch.zeros(3, 2), one.schedule.level(0.5)).shape == (3, 2)
    # What users had to write before makes the same network.
    implied, explicit = (
        Components.of(composed("diffuser=iddpm", *words)).scoring.model.denoiser.state_dict()
        for words in ([], ["backbone.outputs=2"])
    )
    assert all(torch.equal(implied[name], explicit[name]) for name in explicit)


def test_bfloat16_trains_on_a_cpu_and_the_model_takes_noise_of_any_float_type(tmp_path: Path) -> None:
    cfg = composed("trainer.precision=bf16-mixed", "training.steps=2", "training.warmup=0", f"paths.runs={tmp_path}")
    run = Run.of(cfg)
    assert complete(cfg, run, []) is not None
    assert "precision: bf16-mixed" in run.fit.config_file.read_text()
    denoiser = results.load_fit(run.fit, tmp_path)
    level = denoiser.schedule.level(0.5)
    expected = denoiser(torch.ones(2, 2), level)
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        found = denoiser(torch.ones(2, 2, dtype=kind), level)
        assert found.dtype == kind
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_a_training_that_stops_early_has_its_last_step_in_the_record(tmp_path: Path) -> None:
    validation = ["validation=best", "validation.every=3", "validation.patience=1", "validation.samples=16"]
    cfg = composed(*validation, "training.steps=300", "trainer.log_every=50", f"paths.runs={tmp_path}")
    run = Run.of(cfg)
    assert complete(cfg, run, []) is not None
    done = run.fit.result()
    assert done is not None
    assert done["steps"] < 300, "these settings no longer stop early"
    assert done["steps"] % 50, "these settings no longer stop between two lines"
    last = read_metrics(run.fit.metrics_file)[-1]
    assert (last["step"], last["loss"]) == (done["steps"] - 1, pytest.approx(done["loss"]))


def test_the_contact_sheet_that_sample_writes_is_not_scored(tmp_path: Path) -> None:
    samples = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    drawn = FreshSamples(IMAGES, samples, 0, 20, 1.0, torch.device("cpu"), "32-true", [])
    write(drawn, tmp_path / "drawn", {}, show=False)
    assert torch.equal(read(str(tmp_path / "drawn"), None, "refuse").x, samples)


def test_long_work_on_real_data_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "REPORT_SECONDS", 0.0)
    reference.Library(identity(), ["features"], tmp_path, 100).reference(Moons(size=500).load("test"))
    assert re.search(r"real data: features of 100 of 500, about \d+ s to go", capsys.readouterr().err)
