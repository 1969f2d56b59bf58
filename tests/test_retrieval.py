"""Retrieval: whether samples show the texts that they were asked for, by an encoder that is trained on the data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

import forked_runs
import text_encoders
from diffsweep.evaluation.picture_text import bag_of_words, finds, fit

ROOT = Path(__file__).parent.parent
TINY = ["training.steps=3", "training.warmup=0", "evaluation.samples=20", "trainer.progress=false", "backbone.width=8"]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 220), "grey": (128, 128, 128)}


def patches(n: int, seed: int) -> tuple[Tensor, list[str]]:
    """Noisy pictures of one colour, with captions of one of two forms."""
    stream = torch.Generator().manual_seed(seed)
    names = [list(COLOURS)[int(i)] for i in torch.randint(4, (n,), generator=stream)]
    x = torch.tensor([COLOURS[name] for name in names]).float().view(n, 3, 1, 1).expand(n, 3, 16, 16)
    noisy = (x + 12 * torch.randn(n, 3, 16, 16, generator=stream)).clamp(0, 255).to(torch.uint8)
    return noisy, [f"a {name} patch" if i % 2 else name for i, name in enumerate(names)]


def test_what_a_picture_shows_is_found_among_other_texts() -> None:
    network = fit(*patches(400, 0), steps=60)
    x, texts = patches(64, 1)
    wrong = [[f"a {other} patch" for other in COLOURS if other not in text] for text in texts]
    assert finds(network, x, texts, wrong).mean() > 0.95
    # One that was asked for another colour is not taken for it.
    turned = [wrong[i][0] for i in range(64)]
    others = [[f"a {other} patch" for other in COLOURS if other not in text] for text in turned]
    assert finds(network, x, turned, others).mean() < 0.05
    # Each answer is a function of its own row.
    assert torch.equal(finds(network, x[3:9], texts[3:9], wrong[3:9]), finds(network, x, texts, wrong)[3:9])
    again = fit(*patches(400, 0), steps=60)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert bag_of_words("Red, heart!") == bag_of_words("red heart") != bag_of_words("red hearts")
    assert bag_of_words("") == bag_of_words("...")


def train(folder: Path, *words: str) -> tuple[int, str, str]:
    arguments = [str(ROOT / "train.py"), *TINY, *words]
    done = forked_runs.run(arguments, folder, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_cell_is_told_how_often_its_texts_are_found_and_why_not(tmp_path: Path) -> None:
    metric = ["metric=[frechet,retrieval]", "evaluation.metrics.retrieval.steps=80"]
    told = ["dataset=digits_captions", *text_encoders.words(), *metric]
    code, out, err = train(tmp_path, *told)
    assert code == 0, err
    assert "metric retrieval: training an encoder of digits_captions's pictures and captions, 80 steps" in err
    assert "retrieval" in out
    code, _, err = train(tmp_path, *told, "prompts=[a handwritten seven]")
    assert code == 0, err
    # It is trained once.
    assert "training an encoder" not in err
    code, _, err = train(tmp_path, *metric)
    assert code == 0, err
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/fits/*/cells/*/result.json")]
    by_dataset = {one["dataset"]: [row for row in results if row["dataset"] == one["dataset"]] for one in results}
    for one in by_dataset["digits_captions"]:
        # Of three captions of a digit one is right: a third is the most that can be had.
        assert 0.15 < one["retrieval_floor"] < 0.6
        assert 0 <= one["retrieval"] <= one["retrieval_high"]
        assert "1 of 30 captions of the test split, chance 0.0333" in one["retrieval_by"]
    (one,) = by_dataset["digits"]
    assert one["retrieval"] is None
    assert one["retrieval_reason"] == "the samples were asked for no text (condition=text)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metric=[retrieval]"], "retrieval is measured beside others, and cells are ranked by their samples"),
        (["metric=[frechet,retrieval]", "evaluation.metrics.retrieval.among=1"], "retrieval.among=1 must be a whole"),
    ],
)
def test_what_does_not_fit_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    code, _, err = train(tmp_path, *words)
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert said in err
