"""An evaluation next to torch-fidelity's and torchmetrics': the same images, network, weights and metrics.

    python benchmarks/evaluation_speed.py --images 200 --rounds 3

Everybody gets the same drawn and the same real images (uint8, real CIFAR-10 if it is at hand, else noise) and random
weights in Inception, and computes fid, kid, inception score, precision and recall. Contestants take turns; the medians
of the rounds are printed. One evaluation of a sweep is what is timed: the statistics of the real images are known
beforehand where a library can keep them (ours, and torch-fidelity's cache), as in every evaluation but the first.

The second table needs no network: how long features take to become numbers, at the sizes of a paper.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import patch

import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from diffsweep.data.examples import Examples
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.inception import Inception
from diffsweep.evaluation.kernel import KernelDistance
from diffsweep.evaluation.metric import Metric
from diffsweep.evaluation.moments import Moments
from diffsweep.evaluation.neighbours import Neighbours
from diffsweep.evaluation.reference import Library
from diffsweep.evaluation.score import Score

BATCH = 50


class Images(Dataset[Tensor]):
    """What torch-fidelity takes."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


def random_weights(folder: Path) -> Path:
    torch.manual_seed(0)
    module = "torch_fidelity.feature_extractor_inceptionv3"
    with patch.object(FeatureExtractorInceptionV3, "load_state_dict"), patch(f"{module}.load_state_dict_from_url"):
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(network.state_dict(), folder / "random.pth")
    return folder / "random.pth"


def pictures(count: int, root: Path) -> tuple[Tensor, Tensor]:
    """As many drawn and real images (N, 3, 32, 32)."""
    try:
        from diffsweep.data.cifar10 import CIFAR10

        x = CIFAR10(root=root, download=False).load("test").x
    except ValueError as error:
        print(f"noise instead of CIFAR-10: {error}")
        x = torch.randint(0, 256, (2 * count, 3, 32, 32), dtype=torch.uint8)
    noise = torch.randn(x[:count].shape, generator=torch.Generator().manual_seed(0)) * 10
    return (x[:count] + noise).round().clamp(0, 255).to(torch.uint8), x[count : 2 * count]


Contestant = Callable[[], dict[str, float]]


def contestants(drawn: Tensor, real: Tensor, weights: Path, folder: Path) -> dict[str, Contestant]:
    metrics: list[Metric] = [Frechet(), KernelDistance(), Score(), Neighbours()]
    state = torch.load(weights, weights_only=True)
    extractor = Extractor(Inception(state), "inception", 2048, "random", ("features", "logits", "spatial"))
    library = Library(extractor, ["features", "logits"], folder, BATCH, show=False)
    examples = Examples(real, torch.zeros(len(real), dtype=torch.int64))

    def ours(intervals: bool = True) -> dict[str, float]:
        evaluation = Evaluation(extractor, metrics)
        features = Features.collect(extractor.batches(drawn, BATCH), None, evaluation.outputs)
        reference = library.reference(examples)
        if not intervals:
            return evaluation.values(features, reference)
        return {name: estimate.value for name, estimate in evaluation.measure(features, reference).items()}

    def fidelity() -> dict[str, float]:
        return torch_fidelity.calculate_metrics(
            input1=Images(drawn),
            input2=Images(real),
            input2_cache_name="real",
            cache_root=str(folder / "fidelity"),
            fid=True,
            kid=True,
            isc=True,
            prc=True,
            kid_subset_size=min(1000, len(drawn)),
            feature_extractor="inception-v3-compat",
            feature_extractor_weights_path=str(weights),
            batch_size=BATCH,
            cuda=False,
            save_cpu_ram=True,
            verbose=False,
        )

    def torchmetrics() -> dict[str, float]:
        # Its metrics take a network each; sharing one object saves the building, not the passes.
        features = NoTrainInceptionV3("inception", ["2048"], str(weights), antialias=False)
        logits = NoTrainInceptionV3("inception", ["logits_unbiased"], str(weights), antialias=False)
        fid = FrechetInceptionDistance(features)
        kid = KernelInceptionDistance(features, subset_size=min(1000, len(drawn)))
        score = InceptionScore(logits)
        for x, is_real in ((drawn, False), (real, True)):
            for batch in x.split(BATCH):
                fid.update(batch, real=is_real)
                kid.update(batch, real=is_real)
                if not is_real:
                    score.update(batch)
        return {"fid": float(fid.compute()), "kid": float(kid.compute()[0]), "isc": float(score.compute()[0])}

    def network() -> dict[str, float]:
        for batch in drawn.split(BATCH):
            extractor(batch)
        return {}

    return {
        "network passes alone": network,
        "diffsweep": ours,
        "diffsweep without intervals": lambda: ours(intervals=False),
        "torch-fidelity": fidelity,
        "torchmetrics (no precision, recall)": torchmetrics,
    }


class Real:
    """A reference made of given features."""

    def __init__(self, features: Tensor) -> None:
        self.features = Features({"features": features})
        self.known = Moments.of(features)
        self.kept: dict[str, Mapping[str, float]] = {}

    def moments(self, output: str = "features") -> Moments:
        return self.known

    def keep(self, what: str, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        if what not in self.kept:
            self.kept[what] = compute()
        return self.kept[what]


def numbers_only(sizes: list[tuple[int, int]]) -> None:
    print("\nfrom features to numbers, CPU seconds (real: 10,000 kept, and what follows from them alone)")
    print(f"{'n':>7} {'d':>5}  {'metric':<12} {'value':>8} {'with interval':>14}")
    for n, d in sizes:
        torch.manual_seed(0)
        mixing = torch.randn(d, d) / d**0.5
        drawn, real = Features({"features": torch.randn(n, d) @ mixing * 1.1}), Real(torch.randn(10_000, d) @ mixing)
        for metric in (Frechet(), KernelDistance(), Neighbours()):
            metric.prepare(drawn.take(torch.arange(20)), real)
            started = time.process_time()
            numbers = metric.prepare(drawn, real)
            numbers(None)
            alone = time.process_time() - started
            for block in range(len(drawn.blocks)):
                numbers(block)
            print(f"{n:>7} {d:>5}  {metric.short:<12} {alone:>8.2f} {time.process_time() - started:>14.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="drawn, and as many real ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10")
    parser.add_argument("--sizes", default="500x64,5000x64,500x2048,5000x2048", help="NxD of the second table")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder))
        entrants = contestants(*pictures(args.images, args.data), weights, Path(folder))
        for run in entrants.values():
            run()
        wall: dict[str, list[float]] = {name: [] for name in entrants}
        cpu: dict[str, list[float]] = {name: [] for name in entrants}
        found: dict[str, dict[str, float]] = {}
        for _ in range(args.rounds):
            for name, run in entrants.items():
                before, used = time.perf_counter(), time.process_time()
                found[name] = run()
                print(f"{name}: {time.perf_counter() - before:.1f} s", file=sys.stderr, flush=True)
                wall[name].append(time.perf_counter() - before)
                cpu[name].append(time.process_time() - used)
    least = statistics.median(cpu["network passes alone"])
    print(f"{args.images} images, {torch.get_num_threads()} threads, medians of {args.rounds} rounds")
    print(f"{'':<36} {'wall s':>8} {'CPU s':>8} {'images/s':>9} {'x network':>10}")
    for name in entrants:
        seconds, used = statistics.median(wall[name]), statistics.median(cpu[name])
        print(f"{name:<36} {seconds:>8.1f} {used:>8.1f} {args.images / seconds:>9.1f} {used / least:>10.2f}")
    for name, values in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.6g}" for key, value in values.items()))
    numbers_only([(int(n), int(d)) for n, d in (size.split("x") for size in args.sizes.split(","))])


if __name__ == "__main__":
    main()
