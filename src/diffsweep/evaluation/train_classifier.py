"""Train the network behind `fd_digits` or `fd_fashion_mnist` and write its weights and card into the package.

    python -m diffsweep.evaluation.train_classifier --dataset fashion_mnist

It sees the training split only; on one machine the same command gives the same weights, bit for bit. A new dataset
needs one more entry in RECIPES and an extractor YAML.
"""

import argparse
import hashlib
import json
import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from diffsweep.evaluation.classifier import WEIGHTS, Classifier
from diffsweep.files import write_atomic
from diffsweep.messages import print_lines


@dataclass(frozen=True)
class Recipe:
    """How one classifier is trained.

    Attributes:
        dataset: "module:Class" of the data (named, not imported: this folder knows no dataset).
        data: what the card says about them.
        epochs: passes over the training split.
        rate: highest learning rate of the one-cycle schedule.
        flip: whether left and right are exchanged at random.
        degrees: largest rotation.
        shift: largest shift, in pixels.
        decorrelation: weight of the penalty that keeps the features from repeating each other.
    """

    dataset: str
    data: str
    epochs: int
    rate: float
    flip: bool
    degrees: float
    shift: float
    batch: int = 128
    decay: float = 0.05
    decorrelation: float = 0.3


RECIPES = {
    "digits": Recipe(
        "diffsweep.data.digits:Digits",
        "1,797 real 8x8 digits (scikit-learn), our fixed split: 1,297 for training, 500 for the test",
        epochs=60,
        rate=6e-3,
        flip=False,
        degrees=8,
        shift=0.7,
        batch=64,
    ),
    "fashion_mnist": Recipe(
        "diffsweep.data.fashion_mnist:FashionMNIST",
        "Fashion-MNIST (arXiv 1708.07747): 60,000 for training, 10,000 for the test",
        epochs=9,
        rate=4e-3,
        flip=True,
        degrees=0,
        shift=0,
    ),
    "moving_digits": Recipe(
        "diffsweep.data.moving_digits:MovingDigitFrames",
        "frames of videos of scikit-learn's digits, 8x8 at any place of 16x16: 15,564 for training, 6,000 for the test",
        epochs=12,
        rate=5e-3,
        flip=False,
        degrees=8,
        shift=0.7,
    ),
}


def fit(x: Tensor, labels: Tensor, classes: int, recipe: Recipe, seed: int) -> Classifier:
    """A classifier of uint8 images (N, C, H, W), trained by AdamW with a one-cycle rate, in evaluation mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Classifier((x.shape[1], x.shape[2], x.shape[3]), classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=recipe.decay)
    steps = recipe.epochs * (len(x) // recipe.batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=0.2)
    for batch in _batches(len(x), recipe, generator):
        images = _augment(x[batch].float(), recipe, generator).contiguous(memory_format=torch.channels_last)
        found = network(images)
        loss = F.cross_entropy(found["logits"], labels[batch])
        loss = loss + recipe.decorrelation * _correlation(found["features"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    return network.eval()


@torch.inference_mode()
def accuracy(network: Classifier, x: Tensor, labels: Tensor) -> float:
    """Share of uint8 images (N, C, H, W) whose label is found, in 0..1."""
    guesses = torch.cat([network(part)["logits"].argmax(dim=1) for part in x.split(500)])
    return float((guesses == labels).double().mean())


def _batches(count: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(recipe.epochs):
        order = torch.randperm(count, generator=generator)
        yield from order[: count // recipe.batch * recipe.batch].split(recipe.batch)


def _correlation(features: Tensor) -> Tensor:
    """Mean square of a feature's correlations with all others, summed over them (DeCov, arXiv 1511.06068, eq. 2)."""
    correlations = features.T @ features / len(features)
    return (correlations - torch.diag(correlations.diag())).square().sum() / len(correlations)


def _augment(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    def spread(most: float) -> Tensor:
        return (torch.rand(len(x), generator=generator) * 2 - 1) * most

    angle = spread(math.radians(recipe.degrees))
    mirror = torch.where(spread(1) < 0, -1.0, 1.0) if recipe.flip else torch.ones(len(x))
    step = 2 * recipe.shift / x.shape[-1]
    rows = (mirror * angle.cos(), -angle.sin(), spread(step)), (mirror * angle.sin(), angle.cos(), spread(step))
    matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    sampled = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, sampled, align_corners=False)


def _card(name: str, recipe: Recipe, seed: int, score: float, content: bytes, parameters: int) -> str:
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("torch", "safetensors", "numpy"))
    options = "".join(
        f" --{key} {value}"
        for key, value, default in (("seed", seed, 0), ("epochs", recipe.epochs, RECIPES[name].epochs))
        if value != default
    )
    return f"""# Classifier of {name}

Feature extractor of the metric `fd_{name}`: the 64 normalised features before the logits (`classifier.py`).

- Data: {recipe.data}. Trained on the training split only.
- Command: `python -m diffsweep.evaluation.train_classifier --dataset {name}{options}`
- Seed: {seed}
- Recipe: {recipe.epochs} epochs, batch {recipe.batch}, AdamW (decay {recipe.decay}), one cycle up to {recipe.rate};
  decorrelation {recipe.decorrelation}, flip {recipe.flip}, rotation up to {recipe.degrees} degrees,
  shift up to {recipe.shift} pixels
- Test accuracy: {score:.2%}
- Parameters: {parameters:,}; file: {len(content):,} bytes
- Versions: Python {platform.python_version()}, {versions}; one CPU thread
- SHA-256: {hashlib.sha256(content).hexdigest()}
- Licence: that of this project
"""


def main(arguments: list[str] | None = None) -> None:
    """The command; see the module's text."""
    parser = argparse.ArgumentParser(description="train the classifier behind fd_NAME")
    parser.add_argument("--dataset", choices=sorted(RECIPES), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="passes over the training split (default: the recipe's)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of weights and card (default: the package)")
    chosen = parser.parse_args(arguments)
    recipe = RECIPES[chosen.dataset]
    if chosen.epochs is not None:
        recipe = Recipe(**{**recipe.__dict__, "epochs": chosen.epochs})

    # One thread: sums then have one order, and the weights do not depend on the machine's number of cores.
    torch.set_num_threads(1)
    module, _, name = recipe.dataset.partition(":")
    dataset = getattr(import_module(module), name)()
    train, test = dataset.load("train"), dataset.load("test")
    network = fit(train.x, train.labels, dataset.classes, recipe, chosen.seed)
    score = accuracy(network, test.x, test.labels)

    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    # One entry only: safetensors writes several in an order that changes from run to run.
    content = save(state, {"network": json.dumps({"shape": network.shape, "classes": dataset.classes})})
    parameters = sum(weights.numel() for weights in network.parameters())
    write_atomic(chosen.out / f"{chosen.dataset}.safetensors", content)
    card = _card(chosen.dataset, recipe, chosen.seed, score, content, parameters)
    write_atomic(chosen.out / f"{chosen.dataset}.md", card.encode())
    print_lines(f"{chosen.dataset}: test accuracy {score:.2%}, {len(content):,} bytes in {chosen.out}")


if __name__ == "__main__":
    main()
