"""Frechet distance against CPU seconds of training, on real Fashion-MNIST and one CPU thread, beside three peers.

    python benchmarks/fashion_mnist_cpu.py                                  # the whole ladder, hours
    python benchmarks/fashion_mnist_cpu.py --budgets 30 --samples 500       # a quick look
    python benchmarks/fashion_mnist_cpu.py --report                         # table and curve of what is there

Every point is a training of exactly that many CPU seconds, learning-rate schedule and all; trainings of one budget
run in alternating slices in one process, so that whatever else the machine does hits all alike. README.md beside this
file states each contestant's settings.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from diffsweep.data.fashion_mnist import FashionMNIST
from diffsweep.evaluation.classifier import classifier
from diffsweep.evaluation.frechet import frechet_distance
from diffsweep.evaluation.moments import Moments
from diffsweep.runs.build import Components
from diffsweep.runs.instantiate import make
from diffsweep.settings import DECAYS
from diffsweep.training.fit import Fitting

HERE = Path(__file__).parent
SIDE = 28


@dataclass(frozen=True)
class Recipe:
    """How a contestant is trained; lr rises over `warmup` steps and follows `decay` over the budget."""

    batch: int
    lr: float
    warmup: int = 0
    decay: str = "constant"
    clip: float | None = 1.0

    def factor(self, step: int, done: float) -> float:
        """The learning rate of a step (from 0) at the share `done` of the budget, as a share of lr."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return rise * DECAYS[self.decay](done)


class Contestant(ABC):
    """A model, its objective, its averaged weights and its sampler.

    A peer keeps its own network, noise schedule, objective, averaging and sampler; batch and learning rate are chosen
    for these budgets, since those it documents are for hours on a GPU (a batch of 1024 would be ten steps here).
    """

    name: str

    def __init__(self, recipe: Recipe, seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe = recipe
        self.model = self.build()
        self.averaged = [weight.detach().clone() for weight in self.model.parameters()]
        self.optimizers = self.optimize()
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.steps = 0
        self.cpu = 0.0

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(weight.numel() for weight in self.model.parameters())

    @abstractmethod
    def build(self) -> nn.Module:
        """The network (with anything that must be on board), fresh."""

    @abstractmethod
    def optimize(self) -> list[torch.optim.Optimizer]:
        """Its optimizers, at their full learning rates."""

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """The training loss, a scalar, of images (N, 1, 28, 28) in [-1, 1]."""

    @abstractmethod
    def ema(self, step: int) -> float:
        """The decay of the average at a step (from 1); 1 leaves the average alone."""

    @abstractmethod
    def sample(self, n: int, nfe: int) -> Tensor:
        """`n` images (n, 1, 28, 28), about [-1, 1], at `nfe` network evaluations, from the model's present weights."""

    def train(self, data: Tensor, budget: float, seconds: float) -> None:
        """Train until `budget` CPU seconds in all are used, for about `seconds` of them."""
        self.model.train()
        start, before = time.process_time(), self.cpu
        while self.cpu < budget and self.cpu - before < seconds:
            self.step(data, min(1.0, self.cpu / budget))
            self.cpu = before + time.process_time() - start

    def step(self, data: Tensor, done: float) -> None:
        """One update at the share `done` of the budget."""
        if len(self.order) < self.recipe.batch:
            self.order = torch.randperm(len(data), generator=self.generator)
        chosen, self.order = self.order.split([self.recipe.batch, len(self.order) - self.recipe.batch])
        factor = self.recipe.factor(self.steps, done)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        loss = self.loss(data[chosen].float() / 127.5 - 1)
        self.model.zero_grad()
        loss.backward()
        weights = list(self.model.parameters())
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(weights, self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        decay = self.ema(self.steps)
        if decay < 1:
            for average, weight in zip(self.averaged, weights, strict=True):
                average.lerp_(weight.detach(), 1 - decay)

    @torch.no_grad()
    def draw(self, n: int, nfe: int, seed: int, tick: Callable[[int], None], chunk: int = 250) -> Tensor:
        """`n` images as uint8, from the averaged weights."""
        torch.manual_seed(seed)
        weights = list(self.model.parameters())
        for weight, average in zip(weights, self.averaged, strict=True):
            weight.copy_(average)
        self.model.eval()
        images = []
        for start in range(0, n, chunk):
            images.append(self.sample(min(chunk, n - start), nfe).clamp(-1, 1))
            tick(len(images[-1]))
        return ((torch.cat(images) + 1) * 127.5).round().to(torch.uint8)


class Ours(Contestant):
    """diffsweep as `python train.py experiment=fashion_mnist` composes it, but without labels, for a budget of time."""

    name = "diffsweep"

    def __init__(self, overrides: Sequence[str], seed: int) -> None:
        with initialize_config_dir(str(HERE.parent / "conf"), version_base=None):
            # The peers are told no labels and are not guided.
            alone = ["condition=none", "guidance=none", "training.keep=[]"]
            words = ["experiment=fashion_mnist", *alone, f"seed={seed}", *overrides]
            self.config = compose("config", overrides=words)
        training = self.config.training
        lr = self.config.optimizer.lr
        super().__init__(Recipe(training.batch_size, lr, training.warmup, training.decay, training.clip), seed)

    def build(self) -> nn.Module:
        self.components = Components.of(self.config)
        return self.components.scoring.model.denoiser

    def optimize(self) -> list[torch.optim.Optimizer]:
        return [make(self.config, "optimizer")(self.model.parameters())]

    def loss(self, x: Tensor) -> Tensor:
        model, fitting = self.components.scoring.model, self.components.fitting
        assert isinstance(fitting, Fitting)
        return fitting.objective(model.denoiser, x, generator=self.generator).mean()

    def ema(self, step: int) -> float:
        return min(self.config.ema.decay, (1 + step) / (10 + step))

    def sample(self, n: int, nfe: int) -> Tensor:
        scoring = self.components.scoring
        sampler = replace(scoring.sampler, nfe=nfe)
        return sampler(scoring.model.denoiser, torch.randn(n, 1, SIDE, SIDE), schedule=scoring.model.schedule)


class SmallDiffusion(Contestant):
    """smalldiffusion's examples/fashion_mnist_unet.py: log-linear noise, eps, EMA 0.999, its accelerated sampler."""

    name = "smalldiffusion"

    def build(self) -> nn.Module:
        self.package = import_module("smalldiffusion")
        self.schedule = self.package.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        network = self.package.Scaled(self.package.Unet)
        return network(SIDE, 1, 1, ch=32, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(14,))

    def optimize(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.AdamW(self.model.parameters(), lr=self.recipe.lr)]

    def loss(self, x: Tensor) -> Tensor:
        x0, sigma, eps, _ = self.package.generate_train_sample(x, self.schedule)
        return self.model.get_loss(x0, sigma, eps)  # type: ignore[operator]

    def ema(self, step: int) -> float:
        return min(0.999, (1 + step) / (10 + step))

    def sample(self, n: int, nfe: int) -> Tensor:
        *_, x = self.package.samples(self.model, self.schedule.sample_sigmas(nfe), gam=1.6, batchsize=n)
        return x


class Lucidrains(Contestant):
    """denoising-diffusion-pytorch's README: Unet and GaussianDiffusion (v, sigmoid betas), EMA 0.995, DDIM."""

    name = "denoising-diffusion-pytorch"

    def build(self) -> nn.Module:
        library: Any = import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
        library.tqdm = lambda steps, **_: steps
        network = library.Unet(dim=16, dim_mults=(1, 2, 4), channels=1)
        return library.GaussianDiffusion(network, image_size=SIDE, timesteps=1000, sampling_timesteps=20)

    def optimize(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.model.parameters(), lr=self.recipe.lr, betas=(0.9, 0.99))]

    def loss(self, x: Tensor) -> Tensor:
        return self.model((x + 1) / 2)

    def ema(self, step: int) -> float:
        # At every step: its trainer's every tenth step, after a hundred of copying, would lag too far behind here.
        return min(0.995, (1 + step) / (10 + step))

    def sample(self, n: int, nfe: int) -> Tensor:
        model: Any = self.model
        model.sampling_timesteps, model.is_ddim_sampling = nfe, True
        return model.sample(batch_size=n) * 2 - 1


class Diffusers(Contestant):
    """diffusers' train_unconditional.py: UNet2DModel, DDPMScheduler, eps, its EMA; DPM-Solver++(2M) at few steps."""

    name = "diffusers"

    def build(self) -> nn.Module:
        self.package = import_module("diffusers")
        self.schedule = self.package.DDPMScheduler(num_train_timesteps=1000)
        return self.package.UNet2DModel(
            sample_size=SIDE,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )

    def optimize(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.AdamW(self.model.parameters(), lr=self.recipe.lr, betas=(0.95, 0.999), weight_decay=1e-6)]

    def loss(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x)
        times = torch.randint(0, 1000, (len(x),))
        return F.mse_loss(self.model(self.schedule.add_noise(x, noise, times), times).sample, noise)

    def ema(self, step: int) -> float:
        return min(0.9999, 1 - (1 + step) ** -0.75)

    def sample(self, n: int, nfe: int) -> Tensor:
        solver = self.package.DPMSolverMultistepScheduler.from_config(self.schedule.config)
        solver.set_timesteps(nfe)
        x = torch.randn(n, 1, SIDE, SIDE)
        for t in solver.timesteps:
            x = solver.step(self.model(x, t).sample, t, x).prev_sample
        return x


PEERS: dict[str, type[Contestant]] = {kind.name: kind for kind in (SmallDiffusion, Lucidrains, Diffusers)}
CONTESTANTS = [Ours.name, *PEERS]
# Batch and learning rate: see README.md for how they were chosen.
RECIPES = {
    SmallDiffusion.name: Recipe(batch=16, lr=3e-3, warmup=20, decay="linear"),
    Lucidrains.name: Recipe(batch=32, lr=3e-3, warmup=20, decay="linear"),
    Diffusers.name: Recipe(batch=32, lr=3e-3, warmup=20, decay="linear"),
}


class Progress:
    """One line on standard error: what is done, of an estimate in CPU seconds, and when it will be over."""

    def __init__(self, total: float) -> None:
        self.total, self.done, self.start = total, 0.0, time.monotonic()

    def add(self, cpu: float, doing: str) -> None:
        """Count CPU seconds towards the total."""
        self.done += cpu
        elapsed = time.monotonic() - self.start
        left = elapsed / max(self.done, 1e-9) * max(self.total - self.done, 0)
        share = min(1.0, self.done / self.total)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{share:6.1%}  {elapsed / 60:.0f} min, about {left / 60:.0f} min left  {doing:60s}")
        sys.stderr.flush()


def enter(name: str, args: argparse.Namespace) -> Contestant:
    if name == Ours.name:
        return Ours(args.override, args.seed)
    return PEERS[name](args.recipes[name], args.seed)


def versions() -> dict[str, str]:
    packages = ("torch", "smalldiffusion", "denoising-diffusion-pytorch", "diffusers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def append(path: Path, records: list[dict[str, Any]]) -> None:
    """Add to the JSON list at `path`, replaced whole."""
    known = json.loads(path.read_text()) if path.is_file() else []
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([*known, *records], indent=1) + "\n")
    temporary.replace(path)


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    dataset = FashionMNIST(args.data)
    train, test = dataset.load("train"), dataset.load("test")
    extractor = classifier("fashion_mnist")
    metric = extractor.called("fd")

    def moments(x: Tensor) -> Moments:
        return reduce(Moments.merge, (Moments.of(batch["features"]) for batch in extractor.batches(x, 500)))

    sys.stderr.write(f"measuring {metric} of the {len(train)} real images\n")
    real = moments(train.x)
    chosen = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(args.seed))[: args.samples]
    lowest = frechet_distance(moments(test.x[chosen]), real)
    # A first guess of what drawing costs; the truth replaces it as soon as one contestant has drawn.
    drawing = args.samples * args.nfe / 100
    progress = Progress((sum(args.budgets) + drawing * len(args.budgets)) * len(args.contestants))
    for budget in args.budgets:
        entrants = [enter(name, args) for name in args.contestants]
        while True:
            late = min(entrants, key=lambda entrant: entrant.cpu / budget)
            if late.cpu >= budget:
                break
            before = late.cpu
            late.train(train.x, budget, args.slice)
            progress.add(late.cpu - before, f"{late.name}: {late.cpu:.0f} of {budget:g} CPU s, step {late.steps}")
        for entrant in entrants:
            start = time.process_time()
            doing = f"{entrant.name}: drawing after {budget:g} CPU s"
            images = entrant.draw(
                args.samples,
                args.nfe,
                args.seed,
                lambda n, doing=doing: progress.add(drawing * n / args.samples, doing),
            )
            drawn = time.process_time() - start
            distance = frechet_distance(moments(images), real)
            record = {
                "contestant": entrant.name,
                "budget": budget,
                "cpu": round(entrant.cpu, 2),
                "distance": distance,
                "metric": metric,
                "floor": lowest,
                "samples": args.samples,
                "nfe": args.nfe,
                "seed": args.seed,
                "steps": entrant.steps,
                "images_per_second": round(entrant.steps * entrant.recipe.batch / entrant.cpu, 1),
                "drawing_cpu": round(drawn, 1),
                "parameters": entrant.parameters,
                "recipe": asdict(entrant.recipe),
                "override": args.override if entrant.name == Ours.name else [],
                "versions": versions(),
                "date": time.strftime("%Y-%m-%d"),
            }
            append(args.out.with_suffix(".json"), [record])
            picture(images[:64], args.out.parent / f"{args.out.name}_{entrant.name}_{budget:g}.png", args.pictures)
            print(f"\n{entrant.name} after {budget:g} CPU s: {metric} {distance:.3f} (floor {lowest:.3f})")


def picture(images: Tensor, path: Path, wanted: bool) -> None:
    if not wanted:
        return
    from torchvision.utils import save_image

    save_image(images.float() / 255, path, nrow=8, padding=1)


def report(out: Path) -> str:
    """Write the curve (PNG) and the table (Markdown) of the latest record of each point; returns the table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    latest: dict[tuple[str, float], dict[str, Any]] = {}
    for record in json.loads(out.with_suffix(".json").read_text()):
        latest[record["contestant"], record["budget"]] = record
    budgets = sorted({budget for _, budget in latest})
    names = [name for name in CONTESTANTS if any((name, budget) in latest for budget in budgets)]
    any_record = next(iter(latest.values()))
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    rows = []
    for name in names:
        points = [latest[name, budget] for budget in budgets if (name, budget) in latest]
        axes.plot([p["budget"] for p in points], [p["distance"] for p in points], "o-", label=name)
        cells = [f"{latest[name, budget]['distance']:.2f}" if (name, budget) in latest else "" for budget in budgets]
        million, speed = points[-1]["parameters"] / 1e6, points[-1]["images_per_second"]
        rows.append(f"| {name} | {million:.2f} M | {speed:.0f} | {' | '.join(cells)} |")
    axes.axhline(any_record["floor"], color="grey", linestyle=":", label="real images")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="CPU seconds of training (one thread)",
        ylabel=f"{any_record['metric']}, {any_record['samples']} images, {any_record['nfe']} evaluations",
    )
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(out.with_suffix(".png"), dpi=150)
    heads = " | ".join(f"{budget:g} s" for budget in budgets)
    table = "\n".join(
        [
            f"| contestant | parameters | images/s | {heads} |",
            f"|---|---|---|{'---|' * len(budgets)}",
            *rows,
            f"| real images | | | {' | '.join([format(any_record['floor'], '.2f')] * len(budgets))} |",
        ]
    )
    out.with_suffix(".md").write_text(table + "\n")
    return table


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=float, nargs="+", default=[75, 150, 300, 600], help="CPU seconds of training")
    parser.add_argument("--contestants", nargs="+", default=CONTESTANTS, choices=CONTESTANTS)
    parser.add_argument("--samples", type=int, default=2000, help="images drawn per point")
    parser.add_argument("--nfe", type=int, default=20, help="network evaluations per image")
    parser.add_argument("--slice", type=float, default=5, help="CPU seconds that a contestant trains at a stretch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=HERE.parent / "data", help="folder of the data, if downloaded")
    parser.add_argument("--out", type=Path, default=HERE / "fashion_mnist_cpu", help="results, without an ending")
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE", help="of diffsweep's config")
    parser.add_argument("--set", nargs="+", default=[], metavar="PEER.KEY=VALUE", help="as diffusers.lr=1e-3")
    parser.add_argument("--pictures", action="store_true", help="keep a grid of 64 images per point")
    parser.add_argument("--report", action="store_true", help="only write the table and the curve of what is there")
    args = parser.parse_args(argv)
    args.recipes = dict(RECIPES)
    keys = ("batch", "lr", "warmup", "decay", "clip")
    for change in args.set:
        path, _, value = change.partition("=")
        name, _, key = path.rpartition(".")
        if name not in RECIPES or key not in keys or (key == "decay" and value not in DECAYS):
            parser.error(f"--set {change}: PEER is one of {', '.join(PEERS)}, KEY of {', '.join(keys)}")
        recipe = args.recipes[name]
        args.recipes[name] = replace(recipe, **{key: type(getattr(recipe, key))(value)})
    return args


def main() -> None:
    warnings.filterwarnings("ignore")
    args = arguments()
    if not args.report:
        measure(args)
    print(report(args.out))


if __name__ == "__main__":
    main()
