"""CLIP score: the cosine of samples and their texts by a CLIP that the user gives."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import forked_runs
import text_encoders
from diffsweep.scoring.clip_folder import clip_architecture, clip_content
from diffsweep.scoring.clip_score import ClipScore, _loaded
from diffsweep.sweep.store.result import larger_is_better
from prerequisites import need_module

ROOT = Path(__file__).parent.parent
TINY = ["training.steps=3", "training.warmup=0", "evaluation.samples=20", "trainer.progress=false", "backbone.width=8"]
METRIC = "metric=[frechet,clip_score]"


def train(folder: Path, *words: str) -> tuple[int, str, str]:
    arguments = [str(ROOT / "train.py"), *TINY, *words]
    done = forked_runs.run(arguments, folder, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode, done.stdout, done.stderr


def clip(folder: Path | None = None) -> list[str]:
    return [METRIC, f"evaluation.metrics.clip_score.folder={folder or text_encoders.clip()}"]


def own_cosines(pictures: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
    """As transformers itself has them: every picture with its text alone."""
    transformers = need_module("transformers")
    folder = text_encoders.clip()
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    found = []
    for picture, text in zip(pictures, texts, strict=True):
        given = processor(text=[text], images=[picture], return_tensors="pt", truncation=True, max_length=20)
        with torch.inference_mode():
            image = model.visual_projection(model.vision_model(given["pixel_values"]).pooler_output)
            words = model.text_projection(model.text_model(given["input_ids"]).pooler_output)
        found.append(torch.nn.functional.cosine_similarity(image, words))
    return torch.cat(found)


def test_the_cosine_is_that_of_transformers_whatever_the_pictures_and_the_batch() -> None:
    folder = text_encoders.clip()
    network = _loaded(str(folder), clip_content(str(folder)))
    stream = torch.Generator().manual_seed(0)
    coloured = torch.randint(0, 256, (21, 3, 24, 20), generator=stream, dtype=torch.uint8)
    texts = ["a red heart", "cat", "a text of more than the twenty tokens that this model reads"] * 7
    shown = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in coloured]
    wanted = own_cosines(shown, texts)
    torch.testing.assert_close(network.cosines(coloured, texts), wanted, rtol=0, atol=1e-5)
    assert wanted.std() > 0.05
    # Others get other numbers.
    assert (network.cosines(coloured, texts[1:] + texts[:1]) - wanted).abs().max() > 0.05
    grey = coloured[:4, :1]
    shown = [Image.fromarray(one[0].numpy()).convert("RGB") for one in grey]
    torch.testing.assert_close(network.cosines(grey, texts[:4]), own_cosines(shown, texts[:4]), rtol=0, atol=1e-5)
    # Over white, as they are shown.
    clear = torch.cat([coloured[:4], torch.full((4, 1, 24, 20), 0, dtype=torch.uint8)], 1)
    white = [Image.new("RGB", (20, 24), "white")] * 4
    torch.testing.assert_close(network.cosines(clear, texts[:4]), own_cosines(white, texts[:4]), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_cell_records_it_under_the_name_of_the_weights(tmp_path: Path) -> None:
    told = ["dataset=digits_captions", *text_encoders.words(), "prompts=[a handwritten seven,zero]"]
    code, out, err = train(tmp_path, *told, *clip())
    assert code == 0, err
    folder = text_encoders.clip()
    content = clip_content(str(folder))
    name = f"clip_score_{content[:8]}"
    assert name in out
    (file,) = tmp_path.glob("runs/fits/*/cells/*/result.json")
    result = json.loads(file.read_text())
    assert result[f"{name}_by"] == f"ClipScore ViT 2x16/8 at 16 pixels, weights {content}"
    assert larger_is_better(name)
    # The samples again, as files, and what transformers makes of them.
    words = ["-m", "diffsweep", "sample", file.parent.name, "-n", "20", "--device", "cpu", "--out", "drawn"]
    done = forked_runs.run(words, tmp_path, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    samples = np.load(next((tmp_path / "drawn").rglob("*.npz")))["arr_0"]
    assert len(samples) == 20
    shown = [Image.fromarray(one.squeeze()).convert("RGB") for one in samples]
    wanted = own_cosines(shown, ["a handwritten seven", "zero"] * 10).clamp(min=0)
    assert wanted.max() > 0.01
    assert result[name] == pytest.approx(100 * float(wanted.mean()), abs=1e-3)
    assert result[f"{name}_floor"] == pytest.approx(held_out_score(), abs=1e-3)
    # The same weights elsewhere are the same run: nothing is done anew.
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    code, out, err = train(tmp_path, *told, *clip(moved))
    assert code == 0, err
    assert len([*tmp_path.glob("runs/fits/*/cells/*/result.json")]) == 1
    # Without texts there is none, and it is said why.
    code, _, err = train(tmp_path, *clip())
    assert code == 0, err
    (other,) = set(tmp_path.glob("runs/fits/*/cells/*/result.json")) - {file}
    result = json.loads(other.read_text())
    assert result[name] is None
    assert result[f"{name}_reason"] == "the samples were asked for no text (condition=text)"


def held_out_score() -> float:
    """Of all real test digits and their captions."""
    from hydra import compose, initialize_config_dir

    from diffsweep.data.source import in_memory
    from diffsweep.runs.instantiate import make

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        dataset = make(compose("config", ["dataset=digits_captions"]), "dataset")
    test = in_memory(dataset.load("test"), torch.device("cpu"))
    shown = [Image.fromarray(one[0].numpy()).convert("RGB") for one in test.x[:1000]]
    texts = [str(text) for text in test.entries["caption"]][:1000]
    return 100 * float(own_cosines(shown, texts).clamp(min=0).mean())


def copied(folder: Path) -> Path:
    shutil.copytree(text_encoders.clip(), folder)
    return folder


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def halved(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if "text" not in name}, path, {"format": "pt"})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled, "has its weights as a pickle, which could run any code: they must be safetensors"),
        (halved, "has weights without text_projection.weight: they are of no whole CLIP"),
        (cut, "has weights that cannot be read"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (lambda folder: shutil.copy(text_encoders.tiny() / "config.json", folder), "has a model of the kind bert"),
    ],
    ids=["pickle", "half", "cut", "no pictures", "another model"],
)
def test_a_folder_without_a_whole_clip_is_refused(spoil: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    folder = copied(tmp_path / "clip")
    spoil(folder)
    with pytest.raises(ValueError, match="folder=") as caught:
        ClipScore(str(folder), clip_content(str(folder)))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_other_weights_than_those_of_the_run_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path / "clip")
    metric = ClipScore(str(folder), "0123456789abcdef")
    with pytest.raises(ValueError, match="is no longer that of this run: its content was 0123456789abcdef"):
        metric.ready(None, tmp_path)  # type: ignore[arg-type]
    assert clip_architecture(str(folder)) == "ViT 2x16/8 at 16 pixels"


@pytest.mark.parametrize(
    "words", [[METRIC], ["-m", METRIC, "sampler=ddim,heun"], ["metric=[clip_score]", *clip()[1:]]], ids=len
)
def test_without_weights_it_is_refused_before_the_training(words: list[str], tmp_path: Path) -> None:
    code, _, err = train(tmp_path, "dataset=digits_captions", *text_encoders.words(), *words)
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    if METRIC in words:
        assert "evaluation.metrics.clip_score.folder=null names no folder of CLIP's weights" in err
        assert "hf download openai/clip-vit-large-patch14 --local-dir clip" in err
    else:
        assert "is measured beside others, and cells are ranked by their samples" in err
    assert not [*tmp_path.glob("runs/fits/*/metrics.jsonl")]
