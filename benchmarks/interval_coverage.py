"""Do 95 % intervals cover? `python benchmarks/interval_coverage.py`: six minutes on one core, interval_coverage.json.

A model here is a population of real pictures, altered: a sample of it is drawn again and again, each time measured by
the package with an interval, and it is counted how often the interval holds what it is there to hold, the mean of the
number over all samples of that size. Of Fashion-MNIST's training images 10,000 are the reference and 10,000 others the
population, drawn with replacement, so that draws are independent. Points are drawn anew from the ring of Gaussians.

`--report` prints the table from the JSON; `--quick` prints that of 40 samples from 2,000 pictures, in under a minute of
CPU, and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from diffsweep.data.digits import Digits
from diffsweep.data.examples import Dataset, Examples
from diffsweep.data.fashion_mnist import FashionMNIST
from diffsweep.data.mixture import RingOfGaussians
from diffsweep.data.source import in_memory
from diffsweep.evaluation.classifier import classifier
from diffsweep.evaluation.energy import Energy
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.identity import identity
from diffsweep.evaluation.interval import Estimate
from diffsweep.evaluation.kernel import KernelDistance
from diffsweep.evaluation.metric import Metric
from diffsweep.evaluation.mmd import MMD
from diffsweep.evaluation.moments import Moments
from diffsweep.evaluation.neighbours import Neighbours
from diffsweep.evaluation.reference import Reference
from diffsweep.evaluation.wasserstein import Wasserstein

FILE = Path(__file__).with_suffix(".json")
# Real samples whose features are kept: fewer than the package's 10,000, which only makes the pairs faster.
KEPT = 1000
# Samples of each model, and real pictures of the reference and as many of the population; the same in a hurry.
WHOLE, QUICK = (400, 10_000), (40, 2000)
Draw = Callable[[int, torch.Generator], Features]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    if asked.report:
        print(table(json.loads(FILE.read_text())["rows"]))
        return
    size = QUICK if asked.quick else WHOLE
    started = time.process_time()
    rows = [*ring(*size), *digits(*size), *clothes(*size)]
    seconds = round(time.process_time() - started)
    if not asked.quick:
        found = {"repeats": size[0], "cpu_seconds": seconds, "rows": rows}
        FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(table(rows))
    print(f"{size[0]} samples of each model, {seconds} CPU seconds")


@dataclass(frozen=True)
class Count:
    """What became of the intervals of one number.

    Attributes:
        mean: of the number over all samples: what each interval should hold.
        deviation: standard deviation of the number.
        error: root mean square of the standard errors that the intervals claim.
        width: mean width.
        cover: share of intervals that hold the mean.
    """

    mean: float
    deviation: float
    error: float
    width: float
    cover: float

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> Count:
        values = torch.tensor([estimate.value for estimate in estimates], dtype=torch.float64)
        ends = torch.tensor([estimate.interval for estimate in estimates], dtype=torch.float64)
        errors = torch.tensor([estimate.error for estimate in estimates], dtype=torch.float64)
        mean = values.mean()
        held = (ends[:, 0] <= mean) & (mean <= ends[:, 1])
        return cls(
            float(mean),
            float(values.std()),
            float(errors.square().mean().sqrt()),
            float((ends[:, 1] - ends[:, 0]).mean()),
            float(held.double().mean()),
        )


def counts(
    evaluation: Evaluation, real: Reference, draws: Mapping[str, Draw], n: int, repeats: int
) -> list[dict[str, object]]:
    """One row for each number of each model, and for the difference of the last two models from the same noise."""
    found: dict[tuple[str, str], list[Estimate]] = {}
    for seed in range(repeats):
        for model, draw in draws.items():
            sample = draw(n, torch.Generator().manual_seed(seed))
            for name, estimate in evaluation.measure(sample, real).items():
                found.setdefault((model, name), []).append(estimate)
    rows = [{"model": model, "n": n, "number": name, **vars(Count.of(es))} for (model, name), es in found.items()]
    if len(draws) > 1:
        a, b = list(draws)[-2:]
        for name in {name: None for _, name in found}:
            one, other = found[a, name], found[b, name]
            paired = Count.of([difference(x, y) for x, y in zip(one, other, strict=True)])
            apart = math.hypot(Count.of(one).width, Count.of(other).width)
            row = {"model": f"{a} - {b}, paired", "n": n, "number": name, **vars(paired)}
            rows.append(row | {"unpaired_width": apart})
    return rows


def difference(a: Estimate, b: Estimate) -> Estimate:
    """Of two numbers from the same noise."""
    return Estimate(a.value - b.value, [x - y for x, y in zip(a.without, b.without, strict=True)])


def table(rows: Sequence[Mapping[str, object]]) -> str:
    lines = ["| model | N | number | mean | deviation | claimed | covered | paired width |", "|" + "---|" * 8]
    for row in rows:
        mean, deviation, error, width, cover = (float(str(row[key])) for key in Count.__dataclass_fields__)
        share = f"{width / float(str(row['unpaired_width'])):.2f} of unpaired" if "unpaired_width" in row else ""
        figures = f"{mean:.4g} | {deviation:.2g} | {error:.2g} | {cover:.1%} | {share} |"
        lines.append(f"| {row['model']} | {row['n']} | `{row['number']}` | {figures}")
    return "\n".join(lines)


# --- models ---------------------------------------------------------------------------------------------------------


def noisy(x: Tensor, std: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + std * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(x: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(x, [7, 7], [sigma, sigma])


def extracted(extractor: Extractor, data: Examples) -> Features:
    return Features.collect(extractor.batches(data.x, 500), data.labels, ())


def drawn(pool: Features, weights: Tensor | None = None) -> Draw:
    """Independent rows of the pool, equally likely or by their weights."""
    likely = torch.ones(len(pool)) if weights is None else weights
    return lambda n, generator: pool.take(torch.multinomial(likely, n, replacement=True, generator=generator))


def in_turn(pool: Features) -> Draw:
    """As a conditional model is drawn from: sample i has label i mod classes."""
    assert pool.labels is not None
    rows = [torch.where(pool.labels == label)[0] for label in range(int(pool.labels.max()) + 1)]

    def draw(n: int, generator: torch.Generator) -> Features:
        u = torch.rand(n, generator=generator)
        chosen = [rows[i % len(rows)][int(u[i] * len(rows[i % len(rows)]))] for i in range(n)]
        return pool.take(torch.stack(chosen))

    return draw


def reference(features: Features) -> Reference:
    few = features.take(torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:KEPT])
    return Reference(few, {"features": Moments.of(features["features"])}, "")


def halves(data: Examples, most: int) -> tuple[Examples, Examples]:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    size = min(most, len(data) // 2)
    return data.take(order[:size]), data.take(order[size : 2 * size])


def pictures(dataset: Dataset, extractor: Extractor, most: int) -> tuple[Reference, dict[str, Draw]]:
    """The reference, and the models by name; the last two share their noise."""
    real, other = halves(in_memory(dataset.load("train"), torch.device("cpu")), most)
    clean = extracted(extractor, other)

    def altered(x: Tensor) -> Features:
        return extracted(extractor, Examples(x, other.labels))

    assert clean.labels is not None
    models = {
        "real": drawn(clean),
        "noise 40": drawn(altered(noisy(other.x, 40))),
        "one class 5 times": drawn(clean, 1 + 4.0 * (clean.labels == 0)),
        "blur 0.7, labels in turn": in_turn(altered(blurred(other.x, 0.7))),
        "blur 0.7": drawn(altered(blurred(other.x, 0.7))),
        "blur 0.75": drawn(altered(blurred(other.x, 0.75))),
    }
    return reference(extracted(extractor, real)), models


def clothes(repeats: int, most: int) -> list[dict[str, object]]:
    extractor = classifier("fashion_mnist")
    real, models = pictures(FashionMNIST(download=False), extractor, most)
    distances: list[Metric] = [Frechet(), KernelDistance()]
    few = {name: models[name] for name in ("real", "blur 0.7", "blur 0.75")}
    return [
        *counts(Evaluation(extractor, distances), real, models, 500, repeats),
        *counts(Evaluation(extractor, distances), real, few, 2000, repeats),
        *counts(Evaluation(extractor, [Neighbours()]), real, few, 500, repeats),
    ]


def digits(repeats: int, most: int) -> list[dict[str, object]]:
    extractor = classifier("digits")
    real, models = pictures(Digits(), extractor, most)
    few = {name: models[name] for name in ("real", "blur 0.7")}
    return [
        {**row, "model": f"digits: {row['model']}"}
        for row in counts(Evaluation(extractor, [Frechet(), KernelDistance()]), real, few, 500, repeats)
        if "paired" not in str(row["model"])
    ]


def ring(repeats: int, most: int) -> list[dict[str, object]]:
    """Points of the right distribution, and of two too wide ones that share their noise."""
    dataset = RingOfGaussians()
    real = Features({"features": dataset.load("train").x[:most]})

    def model(std: float) -> Draw:
        def draw(n: int, generator: torch.Generator) -> Features:
            centres = dataset.means[torch.randint(dataset.classes, (n,), generator=generator)]
            return Features({"features": (centres + std * torch.randn(n, 2, generator=generator)).float()})

        return draw

    metrics: list[Metric] = [Wasserstein(), Energy(), MMD()]
    models = {"ring": model(0.1), "ring, std 0.2": model(0.2), "ring, std 0.22": model(0.22)}
    return counts(Evaluation(identity(), metrics), reference(real), models, 300, repeats)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
