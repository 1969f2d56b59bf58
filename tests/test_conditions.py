"""Conditions: one value, brought to every network by its doors, dropped each by itself, asked for by number."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from scipy import ndimage
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import forked_runs
import text_encoders
from conditions import label, labels_or_none
from diffsweep.backbones.doors import Doors, Embeddings, HasDoors
from diffsweep.conditioners import Edges, Label, LowResolution, Number
from diffsweep.conditioners.conditioned import Conditioned, example_condition
from diffsweep.conditioners.conditioner import Conditioner
from diffsweep.conditioners.picture_map import MapInput, edges
from diffsweep.data.examples import Examples
from diffsweep.data.source import in_memory
from diffsweep.diffusion import Condition, Entry
from diffsweep.runs import stages
from diffsweep.runs.build import Components
from diffsweep.runs.instantiate import make_conditioners
from diffsweep.scoring.requests import Requests
from diffsweep.sweep.store.record import Run
from diffsweep.training.batches import Batches
from settings import training_settings

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
# Of the shipped options; one more is tested unasked.
OPTIONS = sorted({path.stem for path in (CONF / "condition").glob("*.yaml")} - {"none", "imported", "imported_text"})
IMAGES = ["dataset=digits", "training.steps=3", "training.warmup=0", "evaluation.samples=20", "trainer.progress=false"]
SMALL = {
    "unet": ["backbone.width=8"],
    "dit": ["backbone=dit_tiny", "backbone.width=16", "backbone.heads=2", "backbone.depth=2"],
    "edm2": ["backbone=edm2_tiny", "backbone.width=8"],
    "diffusers": ["backbone=diffusers"],
}


# What an option needs of the data.
def data_for(name: str) -> list[str]:
    return ["dataset=digits_captions", *text_encoders.words()] if name == "text" else []


def composed(*words: str, folder: Path | None = None) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*words, *([f"paths.runs={folder}"] if folder else [])])


def train(folder: Path, *words: str) -> tuple[int, str, str]:
    arguments = [str(ROOT / "train.py"), *words]
    done = forked_runs.run(arguments, folder, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode, done.stdout, done.stderr


def shaken(model: nn.Module) -> nn.Module:
    """The model with every weight moved, so that nothing is silent any more."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


def two() -> Condition:
    return Condition(
        {"label": label(1, 2, 0)["label"], "number": Entry(torch.rand(3), torch.tensor([True, False, True]))}
    )


def test_rows_names_and_opposites() -> None:
    condition = two()
    assert (len(condition), list(condition)) == (3, ["label", "number"])
    part = condition.take(torch.tensor([2, 0]))
    assert part["label"].value.tolist() == [0, 1]
    assert part["number"].present.all()
    gone = condition.absent(["number"])
    assert gone["label"].present.all()
    assert not gone["number"].present.any()
    assert not any(bool(condition.opposite()[name].present.any()) for name in condition)
    negative = Condition(condition.entries, negative=gone)
    assert negative.opposite() is gone
    assert negative.take(slice(1))["label"].value.tolist() == [1]
    assert len(negative.take(slice(1)).opposite()) == 1
    both = Condition.cat([condition, gone])
    assert both["number"].present.tolist() == [True, False, True, False, False, False]
    mask = torch.tensor([True, True, False])
    assert condition.without({"number": mask})["number"].present.tolist() == [False, False, True]


def test_what_comes_in_by_one_door_is_joined() -> None:
    a, b = Embeddings(vector=torch.ones(2, 3), map=torch.ones(2, 1, 2, 2)), Embeddings(vector=torch.ones(2, 3))
    c = Embeddings(tokens=torch.zeros(2, 4, 5), mask=torch.ones(2, 4, dtype=torch.bool))
    together = Embeddings.together([a, b, c, c])
    assert together.vector is not None
    assert together.map is not None
    assert together.tokens is not None
    assert together.mask is not None
    assert torch.equal(together.vector, torch.full((2, 3), 2.0))
    assert torch.equal(together.map, torch.ones(2, 1, 2, 2))
    assert (together.tokens.shape, together.mask.shape) == ((2, 8, 5), (2, 8))
    assert set(vars(Embeddings.together([])).values()) == {None}


def fits(conditioner: Conditioner, doors: Doors) -> bool:
    try:
        conditioner.module(doors)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("backbone", SMALL)
def test_every_condition_matters_to_every_network_that_has_its_door(name: str, backbone: str, tmp_path: Path) -> None:
    words = [*IMAGES, *SMALL[backbone], f"condition={name}", *data_for(name)]
    cfg = composed(*words, folder=tmp_path)
    doors = Components.of(composed(*IMAGES, *SMALL[backbone])).scoring.model.denoiser.backbone.doors
    assert isinstance(doors, Doors)
    if not fits(make_conditioners(cfg)[name], doors):
        assert backbone not in ("unet", "dit")
        with pytest.raises(ValueError, match=rf"condition={name} comes as a \w+, and this backbone takes "):
            Components.of(cfg)
        return
    scoring = Components.of(cfg).scoring
    model = scoring.model
    network = shaken(model.denoiser.backbone)
    condition = Requests(model.conditioners, model.dataset)(torch.arange(4))
    assert condition is not None
    x, logsnr = torch.randn(4, 1, 8, 8), torch.linspace(-2, 2, 4)
    with torch.no_grad():
        told, untold = network(x, logsnr, condition), network(x, logsnr, condition.absent())
        assert (told - untold).abs().flatten(1).amax(1).min() > 1e-4
        # Nothing is nothing, however it is said; and an example is told its own.
        torch.testing.assert_close(untold, network(x, logsnr))
        some = torch.tensor([0, 2])
        torch.testing.assert_close(
            network(x[some], logsnr[some], condition.take(some)), told[some], rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ValueError, match=r"Condition\.of\(label=labels\)"):
        network(x, logsnr, torch.zeros(4, dtype=torch.int64))
    network(x, logsnr, condition).square().sum().backward()
    assert isinstance(network, Conditioned)
    assert all(weight.grad is not None for weight in network.conditioners.parameters())
    assert any(bool(weight.grad.any()) for weight in network.conditioners.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_condition_is_trained_and_sampled(name: str, tmp_path: Path) -> None:
    words = [*IMAGES, *SMALL["unet"], f"condition={name}", f"condition.{name}.drop=0.2", *data_for(name)]
    cfg = composed(*words, folder=tmp_path)
    result = stages.complete(cfg, Run.of(cfg), [])
    assert result is not None
    assert result.samples == 20


class Half:
    """Tells a number of a picture; half of the examples are left out."""

    def __init__(self, drop: float) -> None:
        self.drop = drop

    def read(self, examples: Examples) -> Entry:
        return Entry(examples.x.float().flatten(1).mean(1), torch.ones(len(examples), dtype=torch.bool))

    def blank(self, n: int) -> Entry:
        return Entry(torch.zeros(n), torch.zeros(n, dtype=torch.bool))

    def module(self, doors: Doors) -> nn.Module:
        raise NotImplementedError


def draw(shape: tuple[int, ...], stream: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(shape[0], generator=stream), torch.randn(shape, generator=stream)


def test_each_entry_is_left_out_by_itself_and_moves_no_other_number() -> None:
    source = Examples(torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1), torch.arange(64) % 4)

    def batches(told: dict[str, Conditioner]) -> Batches:
        return Batches(source, draw, training_settings(steps=40, batch_size=32), told)

    alone, together = batches({"label": Label(4, 0.25)}), batches({"number": Half(0.5), "label": Label(4, 0.25)})
    gone: dict[str, list[Tensor]] = {"label": [], "number": []}
    for one, both in zip(alone, together, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(both, name)) for name in ("x0", "u", "eps"))
        assert one.condition is not None
        assert both.condition is not None
        assert torch.equal(one.condition["label"].present, both.condition["label"].present)
        for name in gone:
            gone[name].append(~both.condition[name].present)
    shares = {name: torch.cat(found).double().mean().item() for name, found in gone.items()}
    assert shares == {"label": pytest.approx(0.25, abs=0.04), "number": pytest.approx(0.5, abs=0.05)}
    label_gone, number_gone = (torch.cat(gone[name]).double() for name in ("label", "number"))
    assert torch.corrcoef(torch.stack([label_gone, number_gone]))[0, 1].abs() < 0.1


def test_edges_are_those_of_scipy_and_follow_a_mirrored_picture() -> None:
    photograph = np.array(load_sample_image("china.jpg"))[100:160, 200:250]
    picture = torch.from_numpy(photograph).permute(2, 0, 1)[None].double() / 255
    slopes = [ndimage.sobel(picture[0].mean(0).numpy(), axis, mode="reflect") / 4 for axis in (0, 1)]
    # As scikit-image's filters.sobel has it.
    np.testing.assert_allclose(edges(picture)[0, 0].numpy(), np.hypot(*slopes) / np.sqrt(2), atol=1e-9)
    stored = (picture * 255).to(torch.uint8)
    told, mirrored = (Edges((3, 60, 50)).read(Examples(x)).value for x in (stored, stored.flip(-1)))
    torch.testing.assert_close(mirrored, told.flip(-1))
    assert 0 < float(told.max()) <= 1


def test_a_coarse_picture_has_the_means_of_its_squares() -> None:
    x = torch.randint(0, 256, (2, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    value = LowResolution((3, 8, 12), factor=4).read(Examples(x)).value
    means = (x.double() / 127.5 - 1).view(2, 3, 2, 4, 3, 4).mean((3, 5))
    torch.testing.assert_close(value[:, :, ::4, ::4].double(), means, rtol=0, atol=1e-5)
    assert torch.equal(value, value[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))


@pytest.mark.parametrize("patch", [1, 2])
def test_a_map_is_as_good_as_channels_of_x(patch: int) -> None:
    """A convolution of x and the map side by side is the sum of a convolution of each."""
    part = MapInput("edges", Doors(map=5, patch=patch), 2, 2)
    value, present = torch.randn(3, 2, 8, 8), torch.tensor([True, False, True])
    found = part(Entry(value, present)).map
    assert found is not None
    there = torch.cat([value, torch.ones(3, 1, 8, 8)], 1) * present.view(-1, 1, 1, 1)
    expected = F.conv2d(F.pixel_unshuffle(there, patch), part.enter.weight, part.enter.bias, padding=1)
    torch.testing.assert_close(found, expected)


def test_what_a_sample_is_asked_for_follows_from_its_number() -> None:
    cfg = composed("dataset=digits", "condition=[label,edges]")
    scoring = Components.of(cfg).scoring
    requests = Requests(scoring.model.conditioners, scoring.model.dataset)
    held_out = scoring.model.dataset.load("test")
    n = len(held_out)
    condition = requests(torch.tensor([3, n + 3, 0]))
    assert condition is not None
    some = held_out.take(torch.tensor([3, 3, 0]))
    # The label is that of the picture whose edges are asked for.
    assert torch.equal(condition["label"].value, some.labels)
    assert torch.equal(condition["edges"].value, Edges((1, 8, 8)).read(some).value)
    alone = Requests({"label": Label(10)}, scoring.model.dataset)
    assert alone.labels(12) is not None
    assert torch.equal(torch.arange(12) % 10, alone.labels(12))  # type: ignore[arg-type]
    assert Requests({}, scoring.model.dataset)(torch.arange(3)) is None


def test_a_number_is_told_by_its_distance_from_the_mean_and_may_be_unknown() -> None:
    told = Number("age", mean=40.0, std=10.0)
    examples = Examples(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), None, {"age": torch.tensor([30.0, math.nan, 52.0])})
    entry = told.read(examples)
    assert entry.present.tolist() == [True, False, True]
    other = Number("shift", mean=0.0, std=1.0).module(Doors(vector=8))
    part = told.module(Doors(vector=8))
    part.load_state_dict(other.state_dict())
    moved = Entry(torch.tensor([-1.0, 0.0, 1.2]), entry.present)
    torch.testing.assert_close(part(entry).vector, other(moved).vector, rtol=1e-4, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"condition\.number\.entry=size names no number of these examples: choose age"
    ):
        Number("size").read(examples)


class Aged:
    """A source of its own, which lies in no memory: 10 pictures, the age of each."""

    labels = torch.zeros(10, dtype=torch.int64)

    def __len__(self) -> int:
        return 10

    def take(self, numbers: Tensor) -> Examples:
        x = numbers.to(torch.uint8).view(-1, 1, 1, 1)
        return Examples(x, None, {"age": numbers.float(), "caption": [str(number) for number in numbers.tolist()]})

    def digest(self) -> str:
        return "aged"


def test_numbers_of_examples_go_to_the_device_with_them() -> None:
    there = in_memory(Aged(), torch.device("cpu"), chunk=4)
    assert torch.equal(Number("age").read(there.take(torch.tensor([9, 2]))).value, torch.tensor([9.0, 2.0]))
    assert there.entries["caption"] == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["condition=edges", "dataset=moons", "backbone=mlp"], "condition.edges: it is read from pictures"),
        (["condition=superres", "condition.superres.factor=3"], "condition.superres.factor=3 does not divide"),
        (["condition=superres", "dataset=digits_bits"], "condition=superres does not go with dataset=digits_bits"),
        (["condition=edges", "backbone=diffusers"], "comes as a map, and this backbone takes vector"),
        (["condition=label", "condition.label.classes=7"], "condition.label.classes=7 must be 10"),
        (["condition=label", "dataset=swissroll", "backbone=mlp", "dataset.classes=0"], "classes"),
        (["condition=label", "condition.label.drop=1"], "condition.label.drop=1 must be"),
        (["condition=label,"], "condition"),
        (["condition=[label,edge]"], "edge"),
        (["guidance=cfg"], "this model has none: choose condition=label"),
        (["guidance=cfg", "condition=[label,superres]"], "condition.superres.drop=0: set condition.superres.drop=0.1"),
        (["guidance=each", "condition=label", "guidance.scales={edges: 2}"], "names no condition: choose label"),
        (["guidance=apg", "condition=label", "guidance.momentum=1"], "guidance.momentum=1 must be between -1 and 1"),
        (["backbone.classes=10"], "what a model is told is a condition now, condition=label or none"),
        (["training.drop_labels=0.2"], "write condition.label.drop"),
    ],
)
def test_what_does_not_fit_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    code, out, err = train(tmp_path, *words, "training.warmup=0")
    assert code == 2, out + err
    assert len(err.strip().splitlines()) == 1, err
    assert said in err


def test_labels_are_asked_for_and_led_away_from_on_the_command_line(tmp_path: Path) -> None:
    words = [*IMAGES, *SMALL["unet"], "condition=label", "guidance=cfg", "training.steps=20"]
    code, _, err = train(tmp_path, *words)
    assert code == 0, err
    (cell,) = (path.parent.name for path in tmp_path.glob("runs/fits/*/cells/*/result.json"))

    def drawn(*more: str) -> tuple[int, str, Path]:
        out = tmp_path / "-".join(["drawn", *more]).replace(" ", "")
        command = ["-m", "diffsweep", "sample", cell, "-n", "4", "--device", "cpu", "--out", str(out), *more]
        done = forked_runs.run(command, tmp_path, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
        return done.returncode, done.stderr, out / "samples.npz"

    found = {}
    for name, more in {"plain": [], "label": ["--label", "3", "7"], "not": ["--negative-label", "5"]}.items():
        code, err, path = drawn(*more)
        assert code == 0, err
        with np.load(path) as file:
            found[name] = file["arr_0"], file["arr_1"].tolist()
    assert found["plain"][1] == found["not"][1] == [0, 1, 2, 3]
    assert found["label"][1] == [3, 7, 3, 7]
    assert not np.array_equal(found["plain"][0], found["label"][0])
    assert not np.array_equal(found["plain"][0], found["not"][0])
    for more, said in (
        (["--label", "12"], "label 12 is none of dataset=digits: 0 to 9"),
        (["--label", "-1"], "-1"),
        (["--guidance", "none", "--negative-label", "x"], "x must be a whole number"),
    ):
        code, err, _ = drawn(*more)
        assert (code, said in err) == (2, True), err


def test_a_condition_of_the_users_own_is_trained(tmp_path: Path) -> None:
    """The files of docs/conditions.md, as they stand there."""
    text = (ROOT / "docs" / "conditions.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (option,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "conf" / "condition").mkdir(parents=True)
    (tmp_path / "brightness.py").write_text(code, encoding="utf-8")
    (tmp_path / "conf" / "condition" / "brightness.yaml").write_text(option, encoding="utf-8")
    words = [*IMAGES, *SMALL["unet"], "--config-dir", "conf", "condition=[label,brightness]", "guidance=each"]
    code, out, err = train(tmp_path, *words)
    assert code == 0, err
    assert "fd_digits" in out


def test_a_network_is_asked_before_it_is_trained() -> None:
    conditioners = make_conditioners(composed("condition=[label,edges]"))
    assert list(conditioners) == ["label", "edges"]
    example = example_condition(conditioners, 3)
    assert example is not None
    assert example["edges"].present.tolist() == [True, False, True]
    assert example["edges"].value.shape == (3, 1, 8, 8)
    assert not isinstance(nn.Linear(1, 1), HasDoors)
    assert labels_or_none(torch.tensor([0, 3]), 3)["label"].present.tolist() == [True, False]
