"""What samples are asked for while a training goes on: the prompts of its cell, but for what shapes the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from omegaconf import DictConfig
from PIL import Image, ImageChops

import text_encoders
from diffsweep.runs import stages
from diffsweep.runs.build import Components
from diffsweep.scoring.requests import Requests
from diffsweep.scoring.sampling import FeatureExtraction, Sampling
from diffsweep.sweep.store.record import Run
from diffsweep.training.fit import Fitting
from diffsweep.training.scoring_callbacks import IntermediateEvaluation, PruningPolicy, WeightsEvaluator

ROOT = Path(__file__).parent.parent
STEPS = 12
TINY = [f"training.steps={STEPS}", "training.warmup=0", "evaluation.samples=20", "trainer.progress=false"]
TINY += ["backbone.width=8", "sampler.nfe=4", "dataset=digits_captions"]
# With a scale at which a text that was not learned for long shows.
PROMPTS = ["prompts=[a handwritten seven,zero]", "guidance=cfg", "guidance.scale=6"]


def composed(folder: Path, *words: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", [*TINY, *text_encoders.words(), f"paths.runs={folder}", *words])


@pytest.mark.slow
def test_pictures_and_intermediate_scores_are_of_the_prompts_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    pictured = ["logger=wandb", "logger.wandb.mode=offline", f"logger.wandb.samples_every={STEPS}"]
    cfg = composed(tmp_path / "runs", *PROMPTS, *pictured, "logger.wandb.samples=20")
    run = Run.of(cfg, {})
    told: list[float] = []

    def report(step: int, metric: str, value: float) -> bool:
        told.append(value)
        return False

    result = stages.complete(cfg, run, [], None, PruningPolicy((STEPS,), 20, report))
    assert result is not None
    # At the last step they are the samples of the cell itself.
    assert told == [pytest.approx(result.main.value, rel=1e-6)]
    with Image.open(run.fit.folder / "samples" / f"{STEPS:08d}.png") as one, Image.open(run.cell.samples_file) as other:
        assert one.size == other.size
        assert ImageChops.difference(one, other).getbbox() is None
    # Those of held-out captions are others.
    free = composed(tmp_path / "runs", *PROMPTS[1:])
    again = Run.of(free, {})
    assert again.fit.signature == run.fit.signature
    assert again.cell.signature != run.cell.signature
    assert stages.complete(free, again, []) is not None
    with Image.open(again.cell.samples_file) as one, Image.open(run.cell.samples_file) as other:
        assert ImageChops.difference(one, other).getbbox() is not None


def test_prompts_have_no_part_in_a_validation(tmp_path: Path) -> None:
    values = []
    for words in ([], PROMPTS[:1]):
        cfg = composed(tmp_path, "validation=best", "validation.samples=20", *words)
        fitting = Components.of(cfg).fitting
        assert isinstance(fitting, Fitting)
        assert fitting.validation is not None
        model = fitting.scoring.model
        evaluation = IntermediateEvaluation.of(fitting.validation, tmp_path / "cache", fitting.scoring.trainer)
        scorer = WeightsEvaluator(model, model.dataset.load("train"), evaluation)
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        values.append(scorer(model.denoiser.backbone.state_dict(), trainer))
    assert values[0] == values[1]


def test_what_a_batch_is_asked_for_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", ["condition=edges", "backbone.width=8", "sampler.nfe=2", f"paths.runs={tmp_path}"])
    scoring = Components.of(cfg).scoring
    extraction = FeatureExtraction(scoring.evaluation.extractor, scoring.evaluation.outputs)
    sampling = Sampling(scoring.model, scoring.sampler, 0, scoring.guidance, extraction)
    asked: list[int] = []
    ask = Requests.__call__

    def counted(self: Requests, numbers: torch.Tensor) -> object:
        asked.append(len(numbers))
        return ask(self, numbers)

    monkeypatch.setattr(Requests, "__call__", counted)
    with torch.no_grad():
        batch = sampling.predict_step(torch.arange(3), 0)
    assert batch.outputs["agreement_edges"].shape == (3, 1)
    assert asked == [3]
