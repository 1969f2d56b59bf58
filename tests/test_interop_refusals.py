"""Folders of models that are broken or hostile: one line, exit code 2, nothing written, no code of theirs run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints_made
import forked_runs
from diffsweep.commands import main

pytest.importorskip("diffusers")

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parent.parent
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"

# The file that code of a folder would make.
MARKER = "code-was-run"


class Evil:
    """An object that makes the marker when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.place),))


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        for key, value in changes.items():
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
        (folder / file).write_text(json.dumps(content))

    return change


def network(**changes: Any) -> Callable[[Path], None]:
    return edit("unet/config.json", **changes)


def scheduler(**changes: Any) -> Callable[[Path], None]:
    return edit("scheduler/scheduler_config.json", **changes)


def index(**changes: Any) -> Callable[[Path], None]:
    return edit("model_index.json", **changes)


def text(file: str, content: str | bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def gone(*files: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in files:
            path = folder / file
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return write


def pickled(name: str, content: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Weights as a pickle in the place of safetensors."""

    def write(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        with (folder / "unet" / name).open("wb") as file:
            pickle.dump(content(folder / MARKER), file)

    return write


def header(content: object, length: int | None = None) -> bytes:
    words = json.dumps(content).encode()
    return (len(words) if length is None else length).to_bytes(8, "little") + words


def shards(names: dict[str, str]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": names}))

    return write


def config_folder(folder: Path) -> None:
    (folder / "unet/config.json").unlink()
    (folder / "unet/config.json").mkdir()


def code(folder: Path) -> None:
    """A network of the folder's own, as trust_remote_code would load it."""
    (folder / "unet" / "my_unet.py").write_text(f"import os; os.mkdir({str(folder / MARKER)!r})\nclass MyUNet: ...\n")
    index(unet=["my_unet", "MyUNet"])(folder)


def pipeline_code(folder: Path) -> None:
    (folder / "pipeline.py").write_text(f"import os; os.mkdir({str(folder / MARKER)!r})\n")
    index(_class_name=["pipeline", "Mine"])(folder)
    network(_class_name="Mine", auto_map={"AutoModel": "pipeline.Mine"})(folder)


TEXTUAL = {"_class_name": "UNet2DConditionModel", "down_block_types": ["CrossAttnDownBlock2D"]}
DEEP = "[" * 100_000
ODD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

# What is done to a good folder, and a word of what is said.
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    # files that are missing or no such files
    "no network": (gone("unet"), "unet/config.json"),
    "no config": (gone("unet/config.json"), "config.json"),
    "no weights": (gone(WEIGHTS), "has no weights"),
    "no scheduler": (gone("scheduler"), "scheduler_config.json is missing"),
    "index is a list": (text("model_index.json", "[]"), "JSON object"),
    "index is cut": (text("model_index.json", '{"unet": ["diff'), "no JSON"),
    "index is empty": (text("model_index.json", ""), "no JSON"),
    "index is binary": (text("model_index.json", b"\xff\xfe\x00"), "no JSON"),
    "index is deep": (text("model_index.json", DEEP), "JSON"),
    "index is large": (text("model_index.json", '{"a": "' + "x" * 3_000_000 + '"}'), "no configuration"),
    "index names nothing": (text("model_index.json", "{}"), "names nothing"),
    "index names two": (index(transformer=["diffusers", "DiTTransformer2DModel"]), "must name one network"),
    "config is a number": (text("unet/config.json", "3"), "JSON object"),
    "config with NaN": (text("unet/config.json", '{"_class_name": "UNet2DModel", "dropout": NaN}'), "dropout=nan"),
    "config is a folder": (config_folder, "cannot be read"),
    # code
    "network of its own": (code, "it is not run"),
    "pipeline of its own": (pipeline_code, "cannot be read"),
    "library os": (index(unet=["os", "mkdir"]), "it is not run"),
    "class of torch": (network(_class_name="torch.hub.load"), "cannot be read"),
    "class of diffusers that is no network": (network(_class_name="DiffusionPipeline"), "cannot be read"),
    "class unknown": (network(_class_name="UNet2DModle"), "did you mean UNet2DModel"),
    "class absent": (network(_class_name=None), "cannot be read"),
    "a target in the config": (network(down_block_types=[{"_target_": "os.mkdir", "path": MARKER}]), "_target_"),
    "an interpolation": (network(act_fn="${oc.env:HOME}"), "act_fn"),
    "pickle that runs code": (pickled("diffusion_pytorch_model.bin", Evil), "could run code"),
    "pickle of an object": (pickled("diffusion_pytorch_model.bin", lambda place: {"a": Evil(place)}), "could run code"),
    "pickle of no tensors": (pickled("diffusion_pytorch_model.bin", lambda place: {"a": 1}), "diffusion_pytorch_model"),
    "pickle is text": (
        lambda folder: (gone(WEIGHTS)(folder), text("unet/diffusion_pytorch_model.bin", "hello")(folder))[0],
        "is not opened",
    ),
    # keys and values
    "unknown key": (network(magic=3), "magic"),
    "key misspelt": (network(layers_per_blocks=1), "did you mean layers_per_block"),
    "many layers": (network(layers_per_block=10**9), "layers_per_block"),
    "large number": (network(in_channels=10**30), "in_channels"),
    "wide": (network(block_out_channels=[1_000_000, 1_000_000]), "is"),
    "block unknown": (network(down_block_types=["EvilBlock", "DownBlock2D"]), "EvilBlock"),
    "blocks that do not fit": (network(up_block_types=["UpBlock2D"]), "up_block_types"),
    "text of the wrong type": (network(layers_per_block="two"), "UNet2DModel"),
    "needs a text": (
        text(
            "unet/config.json",
            '{"_class_name": "UNet2DConditionModel", "addition_embed_type": "text_time"}',
        ),
        "projection_class_embeddings_input_dim=null is no text and six sizes",
    ),
    "other data": (network(in_channels=3, out_channels=3), "conv_in.weight"),
    "labels unlike the data's": (
        lambda folder: checkpoints_made.rewrite(folder, num_class_embeds=7),
        "is told one of 7 labels, not of 10",
    ),
    "data unlike its own": (lambda folder: checkpoints_made.rewrite(folder, in_channels=3, out_channels=3), "3 x any"),
    # the scheduler
    "scheduler unknown": (scheduler(_class_name="DDPMSchedular"), "did you mean DDPMScheduler"),
    "scheduler of its own": (scheduler(_class_name="os.mkdir"), "no scheduler"),
    "scheduler of tokens": (scheduler(_class_name="VQDiffusionScheduler"), "VQDiffusionScheduler"),
    "scheduler with an unknown key": (scheduler(beta_strat=0.1), "did you mean beta_start"),
    "prediction unknown": (scheduler(prediction_type="magic"), "prediction_type=magic"),
    "betas unknown": (scheduler(beta_schedule="magic"), "magic"),
    "betas above one": (scheduler(trained_betas=[0.1, 1.5]), "betas"),
    "betas of nothing": (scheduler(trained_betas=[0.0, 0.0]), "betas"),
    "steps of nothing": (scheduler(num_train_timesteps=0), "num_train_timesteps=0"),
    "steps without end": (scheduler(num_train_timesteps=10**9), "num_train_timesteps"),
    "betas are words": (scheduler(beta_start="small"), "DDPMScheduler"),
    # weights
    "weights are cut": (lambda folder: os.truncate(folder / WEIGHTS, 5000), "was cut"),
    "weights are empty": (text(WEIGHTS, b""), "was cut"),
    "weights are text": (text(WEIGHTS, "these are no weights at all"), "no safetensors file"),
    "header without end": (text(WEIGHTS, header({}, 2**62)), "no safetensors file"),
    "header is a list": (text(WEIGHTS, header([1, 2])), "no safetensors file"),
    "tensor outside": (text(WEIGHTS, header({"a": {**ODD, "data_offsets": [0, 1 << 40]}})), "no safetensors file"),
    "shape below zero": (text(WEIGHTS, header({"a": {**ODD, "shape": [-2]}}) + bytes(8)), "no safetensors file"),
    "no tensors": (text(WEIGHTS, header({})), "has no tensors"),
    "tensor missing": (weights(lambda tensors: tensors.pop("conv_in.weight")), "has no weight conv_in.weight"),
    "tensor of another shape": (
        weights(lambda tensors: tensors.update({"conv_in.bias": torch.zeros(9)})),
        "conv_in.bias is (9,)",
    ),
    "tensor too much": (weights(lambda tensors: tensors.update(more=torch.zeros(1))), "the weight more"),
    "shard elsewhere": (shards({"a": "../../../etc/passwd"}), "no file of weights"),
    "shard absolute": (shards({"a": "/etc/passwd.safetensors"}), "no file of weights"),
    "shard missing": (shards({"a": "one.safetensors"}), "is missing"),
    "shards of nothing": (shards({}), "weight_map"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_one_line(name: str, tmp_path: Path, capsys: Capture) -> None:
    change, words = BROKEN[name]
    folder = tmp_path / "model"
    shutil.copytree(checkpoints_made.ddpm(), folder)
    change(folder)
    code, out, errors = imported(folder, tmp_path, capsys)
    assert code == 2, errors
    assert out == ""
    assert len(errors.splitlines()) == 1, errors
    assert words in errors
    assert not (folder / MARKER).exists()
    assert not (tmp_path / "runs").exists()


def imported(folder: Path, place: Path, capsys: Capture) -> tuple[int, str, str]:
    """Exit code and output of `diffsweep import`, in this process."""
    capsys.readouterr()
    code = main(["import", str(folder), "--dataset", "digits", "--runs", str(place / "runs")])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_there_are_fifty() -> None:
    assert len(BROKEN) >= 50


def test_the_good_folder_is_imported_and_the_evil_pickle_is_evil(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = imported(checkpoints_made.ddpm(), tmp_path, capsys)
    assert code == 0
    assert "UNet2DModel of 44,969 parameters" in out
    assert "1000 steps of linear betas" in out
    with (tmp_path / "evil").open("wb") as file:
        pickle.dump(Evil(tmp_path / MARKER), file)
    pickle.loads((tmp_path / "evil").read_bytes())
    assert (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.steps=5"], "is not trained"),
        (["backbone=unet"], "has a backbone of its own"),
        (["diffuser=v"], "has a diffuser of its own"),
        (["optimizer.lr=1"], "is not trained"),
        (["dataset=cifar10"], "1 x any"),
    ],
)
def test_what_goes_not_with_a_model_is_refused_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    command = [str(ROOT / "train.py"), f"pretrained={checkpoints_made.ddpm()}", f"paths.runs={tmp_path / 'runs'}"]
    done = forked_runs.run([*command, *words], ROOT, dict(os.environ), 300)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()
