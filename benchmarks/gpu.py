"""What a training and a sampling cost on a GPU, in parts of at most nine minutes, each of which leaves a file.

    python benchmarks/gpu.py                    # all parts that have no file yet; the same command again goes on
    python benchmarks/gpu.py step sampling      # these parts only
    python benchmarks/gpu.py --report           # the tables from the files
    python benchmarks/gpu.py --toy              # toy sizes, on any machine, in a minute; no figure of it means anything

`step` compares the training loop of diffsweep with a loop by hand around the same compiled network, and both with the
device's peak; `memory` compares an estimate from shapes alone with what the device says; `sampling` draws with several
samplers; `sharing` trains several small models beside each other on one GPU; `quality` trains for some minutes and
scores, beside smalldiffusion with the settings of its own example. A training of more than nine minutes is stopped,
saved and resumed, by as many runs of this command as it takes; exit code 75 says that something is left.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffsweep.files import atomic
from diffsweep.runs.build import Components
from diffsweep.scoring.sampling import Sampling, draw
from diffsweep.settings import TrainerSettings
from diffsweep.sweep.store.record import Run
from diffsweep.trainer import make_trainer
from diffsweep.training.cost import activation_bytes
from diffsweep.training.fit import Fitting, fit

HERE = Path(__file__).parent
# Seconds that one run of the command may take, and the exit code of one that has left something.
PART, LEFT = 540, 75

# Dense bfloat16 products, FLOP a second, of the makers' data sheets, by a word of the device's name.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "4090": 165e12, "L4": 121e12}

NETWORKS = {
    "unet": ["backbone=unet", "backbone.width=128", "backbone.multipliers=[1,2,2]", "backbone.blocks=3"],
    "dit_b": ["backbone=dit_b"],
}
SAMPLERS = ("ddim", "dpmpp_2m", "unipc", "heun", "ddpm")

# In place of everything above, to see that it runs.
TOY = ["dataset=digits", "backbone=unet", "backbone.width=8", "backbone.groups=4", "backbone.heads=2"]
ON_CPU = ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.compile=false", "trainer.threads=1"]


class Bench:
    """One run of the command: the device, the sizes, and where files are left."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.toy: bool = args.toy
        self.out: Path = args.out
        self.seconds_of_run: float = args.seconds
        self.start = time.monotonic()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        self.peak: float | None = args.peak or next((peak for word, peak in PEAK.items() if word in self.name), None)
        self.data: list[str] = args.override

    def fitting(self, cfg: DictConfig) -> Fitting:
        """How the model of a config is trained."""
        found = Components.of(cfg).fitting
        assert isinstance(found, Fitting)
        return found

    @property
    def left(self) -> float:
        """Seconds of this run that are left."""
        return self.seconds_of_run - (time.monotonic() - self.start)

    def config(self, *overrides: str) -> DictConfig:
        """The composed config at this run's size, on its device."""
        trainer = ["trainer=gpu_fast", *(ON_CPU if self.device.type == "cpu" else [])]
        with initialize_config_dir(str(HERE.parent / "conf"), version_base=None):
            return compose("config", [*trainer, *overrides, *self.data])

    def networks(self) -> dict[str, list[str]]:
        """Overrides by name of the network."""
        if self.toy:
            return {"toy": [*TOY, "training.batch_size=16"]}
        there = {name for name in NETWORKS if (HERE.parent / "conf" / "backbone" / f"{name}.yaml").exists()}
        size = ["dataset=cifar10", "training.batch_size=512", "dataset.download=true"]
        return {name: [*size, *NETWORKS[name]] for name in NETWORKS if name in there}

    def wait(self) -> None:
        """Until the device has done what is queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object], repeats: int) -> list[float]:
        """Of each call, the first two left out."""
        taken = []
        for _ in range(repeats + 2):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            taken.append(time.perf_counter() - start)
        return taken[2:]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 products on a GPU."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else contextlib.nullcontext()


# --- step: our training loop against one by hand ----------------------------------------------------------------------


class Lines(DummyLogger):
    """Notes when the lines of a training's record are written: on a GPU, when the steps before are done."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "images_per_second" in metrics:
            self.times.append(time.perf_counter())

    def per_step(self, every: int) -> list[float]:
        """Seconds a step between two lines; the first lines, in which something is compiled, are left out."""
        gaps = [(after - before) / every for before, after in zip(self.times, self.times[1:], strict=False)]
        return gaps[len(gaps) // 3 :]


def our_steps(bench: Bench, overrides: Iterable[str], steps: int, every: int) -> list[float]:
    """Seconds a step of a training as users start it."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = bench.config(
            *overrides,
            f"paths.runs={folder}",
            f"training.steps={steps}",
            f"trainer.log_every={every}",
            "trainer.progress=false",
        )
        lines = Lines()
        fit(bench.fitting(cfg), Run.of(cfg).fit, [lines])
    return lines.per_step(every)


def by_hand(bench: Bench, overrides: Iterable[str], steps: int, every: int) -> list[float]:
    """Seconds a step of the shortest loop for the same network, loss, optimizer and average."""
    cfg = bench.config(*overrides)
    fitting = bench.fitting(cfg)
    model, objective = fitting.scoring.model, fitting.objective.to(bench.device)
    denoiser = model.denoiser.to(bench.device)
    shape, n = model.dataset.shape, cfg.training.batch_size
    source = model.dataset.load("train")
    data = source.take(torch.arange(len(source))).x.to(bench.device)
    layout = torch.channels_last if cfg.trainer.channels_last and len(shape) == 3 else torch.contiguous_format
    denoiser.backbone.to(memory_format=layout)

    def loss(stored: Tensor, u: Tensor, eps: Tensor) -> Tensor:
        x0 = model.dataset.encode(stored).contiguous(memory_format=layout)
        return objective.regress(denoiser, x0, u, eps.contiguous(memory_format=layout)).mean()

    compiled = torch.compile(loss) if cfg.trainer.compile else loss
    weights = [p for module in (denoiser, objective) for p in module.parameters()]
    optimizer = fitting.optimizer(iter(weights))
    averages = [p.detach().clone() for p in weights]

    def step() -> None:
        chosen = torch.randint(len(data), (n,), device=bench.device)
        u, eps = torch.rand(n, device=bench.device), torch.randn(n, *shape, device=bench.device)
        with bench.autocast():
            value = compiled(data[chosen], u, eps)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        average(averages, weights, 1e-3)

    def several() -> None:
        for _ in range(every):
            step()

    return [taken / every for taken in bench.seconds(several, max(2, steps // every))]


def flops(bench: Bench, overrides: Iterable[str]) -> tuple[int, int]:
    """Parameters, and floating-point operations of a training step on one image, counted without computing any."""
    scoring = Components.of(bench.config(*overrides)).scoring
    network, shape = scoring.model.denoiser.backbone.to("meta"), scoring.model.dataset.shape
    with FlopCounterMode(display=False) as counter:
        x, logsnr = torch.empty(4, *shape, device="meta"), torch.empty(4, device="meta")
        network(x, logsnr, None).sum().backward()
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 4


def average(averages: list[Tensor], weights: Iterable[Tensor], share: float) -> None:
    """Move averages towards weights."""
    torch._foreach_lerp_(averages, [p.detach() for p in weights], share)  # pyright: ignore[reportPrivateImportUsage]


def step(bench: Bench, name: str) -> dict[str, Any]:
    overrides, (steps, every) = bench.networks()[name], (18, 3) if bench.toy else (400, 20)
    parameters, each = flops(bench, overrides)
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(1 if bench.toy else 3):
        # In turns: a device that grows warm, or is shared, harms both alike.
        bare += by_hand(bench, overrides, steps, every)
        ours += our_steps(bench, overrides, steps, every)
    batch = bench.config(*overrides).training.batch_size
    own, least = statistics.median(ours), statistics.median(bare)
    return {
        "parameters": parameters,
        "batch": batch,
        "milliseconds": 1e3 * own,
        "bare_milliseconds": 1e3 * least,
        "bare_share": least / own,
        "images_per_second": batch / own,
        "flops_per_image": each,
        "peak_share": each * batch / own / bench.peak if bench.peak else None,
    }


# --- memory: an estimate from shapes against the device ---------------------------------------------------------------


def training_bytes(overrides: Iterable[str], bench: Bench) -> int:
    """An estimate of what a training step holds at most: weights, gradients, averages, the optimizer's state, and what
    the backward pass needs, counted on the device without values; neither data nor workspace of kernels.
    """
    cfg = bench.config(*overrides)
    fitting = bench.fitting(cfg)
    model = fitting.scoring.model
    denoiser = model.denoiser.to("meta")
    weights = list(denoiser.parameters())
    objective = fitting.objective.to("meta")
    x = torch.empty(cfg.training.batch_size, *model.dataset.shape, device="meta")
    low = torch.autocast("cpu", torch.bfloat16) if "bf16" in cfg.trainer.precision else contextlib.nullcontext()
    with low:
        kept = activation_bytes(lambda: objective.regress(denoiser, x, x.flatten(1)[:, 0], x, None).mean(), weights)
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    # Weights, gradients, averages; Adam has two more of each.
    return 5 * size + kept


def memory(bench: Bench, name: str) -> dict[str, Any]:
    overrides = bench.networks()[name]
    estimate = training_bytes(overrides, bench)
    measured = None
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        our_steps(bench, overrides, 20, 10)
        measured = torch.cuda.max_memory_allocated()
    return {"estimate_bytes": estimate, "measured_bytes": measured}


# --- sampling ---------------------------------------------------------------------------------------------------------


def sampling(bench: Bench, name: str) -> dict[str, Any]:
    overrides = bench.networks()[name]
    n, nfe, repeats = (16, 4, 1) if bench.toy else (1024, 20, 3)
    found: dict[str, Any] = {}
    for sampler in SAMPLERS[: 2 if bench.toy else None]:
        cfg = bench.config(*overrides, f"sampler={sampler}", f"sampler.nfe={nfe}")
        scoring = Components.of(cfg).scoring
        drawing = Sampling(scoring.model, scoring.sampler, 0, trainer=scoring.trainer)
        trainer = functools.partial(make_trainer, quiet(scoring.trainer), HERE, logger=False)
        several = [draw(drawing, trainer, n, n, show=False) for _ in range(repeats + 1)]
        seconds = [drawn.seconds for drawn in several if drawn is not None]
        calls = next(drawn.nfe for drawn in several if drawn is not None)
        bare = forward_seconds(bench, drawing, n, repeats)
        taken = min(seconds[1:])
        found[sampler] = {
            "images_per_second": n / taken,
            "nfe": calls,
            "overhead_microseconds": 1e6 * (taken / calls - bare),
        }
    return {"samples": n, "samplers": found}


def quiet(settings: TrainerSettings) -> TrainerSettings:
    return replace(settings, progress=False)


def forward_seconds(bench: Bench, drawing: Sampling, n: int, repeats: int) -> float:
    """Seconds of the network alone, of as many images at once."""
    network = drawing.denoiser.backbone.to(bench.device).eval()
    layout = torch.channels_last if drawing.channels_last else torch.contiguous_format
    x = torch.randn(n, *drawing.model.dataset.shape, device=bench.device).contiguous(memory_format=layout)
    logsnr = torch.zeros(n, device=bench.device)
    with torch.inference_mode(), bench.autocast():
        return min(bench.seconds(lambda: network(x, logsnr, None), 5 * repeats))


# --- sharing: several jobs on one GPU ---------------------------------------------------------------------------------


def sharing(bench: Bench, jobs: str) -> dict[str, Any]:
    """A sweep of as many small trainings as jobs at once, as users start it."""
    count, steps = int(jobs), 10 if bench.toy else 3000
    with tempfile.TemporaryDirectory() as folder:
        size = [*TOY, "evaluation.samples=16"] if bench.toy else ["dataset=digits"]
        typed = ["-m", f"seed={','.join(map(str, range(count)))}", *size, f"training.steps={steps}", "trainer=gpu_fast"]
        typed += [f"hydra.launcher.jobs_per_gpu={count}"] if bench.device.type == "cuda" else ON_CPU
        start = time.perf_counter()
        command = [
            sys.executable,
            str(HERE.parent / "train.py"),
            *typed,
            f"paths.runs={folder}",
            "trainer.progress=false",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=max(60.0, bench.left))
        wall = time.perf_counter() - start
        rates = [json.loads(path.read_text())["images_per_second"] for path in Path(folder).glob("fits/*/done.json")]
    return {
        "jobs": count,
        "seconds": wall,
        "images_per_second": sum(rates),
        "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ,
    }


# --- quality against minutes ------------------------------------------------------------------------------------------


def quality(bench: Bench, which: str) -> dict[str, Any] | None:
    """A training of so many minutes and its score; None if it goes on in a later run."""
    dataset, minutes, contestant = which.split("-")
    run = ours_for if contestant == "diffsweep" else peer_for
    return run(bench, dataset, float(minutes))


def ours_for(bench: Bench, dataset: str, minutes: float) -> dict[str, Any] | None:
    runs = bench.out / f"runs-{dataset}-{minutes:g}"
    size = [*TOY, "training.batch_size=16", "evaluation.samples=16"] if bench.toy else [f"experiment={dataset}"]
    if not bench.toy and not (HERE.parent / "conf" / "experiment" / f"{dataset}.yaml").exists():
        size = [
            f"dataset={dataset}",
            *NETWORKS["unet"],
            "training.batch_size=512",
            "training.flip=true",
            "evaluation.samples=10000",
        ]
    plan = bench.out / f"steps-{dataset}-{minutes:g}.json"
    if not plan.exists():
        # As many steps as fit into the minutes at the speed that is measured here, so that the rate falls to 0 in time.
        pace = statistics.median(our_steps(bench, size, 9 if bench.toy else 200, 3 if bench.toy else 20))
        write(plan, {"steps": max(3, int(60 * minutes / pace)), "seconds_per_step": pace})
    steps = json.loads(plan.read_text())["steps"]
    trainer = ["trainer=gpu_fast", *(ON_CPU if bench.device.type == "cpu" else [])]
    typed = [*size, *trainer, *bench.data, f"training.steps={steps}", f"paths.runs={runs}", "trainer.progress=false"]
    process = subprocess.Popen([sys.executable, str(HERE.parent / "train.py"), *typed])
    try:
        process.wait(max(1.0, bench.left - (0 if bench.toy else 20)))
    except subprocess.TimeoutExpired:
        # It saves its state; the same command goes on from there.
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        return None
    if process.returncode:
        raise SystemExit(f"the training for {dataset}-{minutes:g} has failed: see above")
    result = json.loads(next(runs.glob("fits/*/cells/*/result.json")).read_text())
    done = json.loads(next(runs.glob("fits/*/done.json")).read_text())
    return {"metric": result["metric"], "value": result[result["metric"]], "steps": steps, "seconds": done["seconds"]}


class Example:
    """smalldiffusion's examples/fashion_mnist_unet.py: network, noise, loss, optimizer and sampler as there."""

    def __init__(self, shape: tuple[int, ...], toy: bool) -> None:
        # Not `import smalldiffusion`: the environment of the tests, where pyright reads this file, lacks the peer.
        self.package: Any = import_module("smalldiffusion")
        self.schedule = self.package.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        channels, side = shape[0], shape[1]
        network = self.package.Scaled(self.package.Unet)
        width = {"ch": 32, "ch_mult": (1,)} if toy else {"ch": 64, "ch_mult": (1, 1, 2)}
        attended = {"attn_resolutions": () if toy else (side // 2,), "num_res_blocks": 1 if toy else 2, "dropout": 0.1}
        self.model: nn.Module = network(side, channels, channels, **width, **attended)
        self.batch = 16 if toy else 1024
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=7e-4)

    def loss(self, x: Tensor) -> Tensor:
        """Of images in [-1, 1]."""
        x0, sigma, eps, _ = self.package.generate_train_sample(x, self.schedule)
        return self.model.get_loss(x0, sigma, eps)  # type: ignore[operator]

    def samples(self, n: int, nfe: int) -> Tensor:
        """From the model's present weights."""
        *_, x = self.package.samples(self.model, self.schedule.sample_sigmas(nfe), gam=1.6, batchsize=n)
        return x


def peer_for(bench: Bench, dataset: str, minutes: float) -> dict[str, Any] | None:
    size = TOY if bench.toy else [f"dataset={dataset}"]
    scoring = Components.of(bench.config(*size)).scoring
    data = scoring.model.dataset.load("train")
    torch.manual_seed(0)
    example = Example(scoring.model.dataset.shape, bench.toy)
    model = example.model.to(bench.device)
    averages = [p.detach().clone() for p in model.parameters()]
    x, state, steps, spent = (
        data.take(torch.arange(len(data))).x.to(bench.device),
        bench.out / f"peer-{dataset}-{minutes:g}.pt",
        0,
        0.0,
    )
    if state.exists():
        saved = torch.load(state, map_location=bench.device, weights_only=True)
        model.load_state_dict(saved["model"])
        example.optimizer.load_state_dict(saved["optimizer"])
        averages, steps, spent = saved["averages"], saved["steps"], saved["seconds"]
    model.train()
    start = time.perf_counter()
    while spent + time.perf_counter() - start < 60 * minutes:
        if bench.left < (0 if bench.toy else 30):
            spent += time.perf_counter() - start
            saved = {"model": model.state_dict(), "optimizer": example.optimizer.state_dict(), "averages": averages}
            with atomic(state) as temporary:
                torch.save({**saved, "steps": steps, "seconds": spent}, temporary)
            return None
        chosen = torch.randint(len(x), (example.batch,), device=bench.device)
        with bench.autocast():
            loss = example.loss(scoring.model.dataset.encode(x[chosen]))
        example.optimizer.zero_grad()
        loss.backward()
        example.optimizer.step()
        steps += 1
        average(averages, model.parameters(), 1 - min(0.999, (1 + steps) / (10 + steps)))
        if steps % 20 == 0:
            bench.wait()
    value = peer_score(bench, example, averages, size)
    return {**value, "steps": steps, "seconds": 60 * minutes}


def peer_score(bench: Bench, example: Example, averages: list[Tensor], size: list[str]) -> dict[str, Any]:
    """Its samples, scored by `diffsweep evaluate` as ours are."""
    n, nfe = (16, 4) if bench.toy else (10000, 20)
    with torch.no_grad():
        for weight, average in zip(example.model.parameters(), averages, strict=True):
            weight.copy_(average)
        example.model.eval()
        chunks = [example.samples(len(some), nfe) for some in torch.arange(n).split(500)]
    images = ((torch.cat(chunks).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npy"
        import numpy as np

        np.save(path, images.permute(0, 2, 3, 1).numpy())
        dataset = next(word.partition("=")[2] for word in size if word.startswith("dataset="))
        command = [sys.executable, "-m", "diffsweep", "evaluate", str(path), "--reference", dataset, "--runs", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(next(Path(folder).rglob("result.json")).read_text())
    return {"metric": found["metric"], "value": found[found["metric"]]}


# --- the command ------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Bench, str], dict[str, Any] | None]] = {
    "step": step,
    "memory": memory,
    "sampling": sampling,
    "sharing": sharing,
    "quality": quality,
}


def tasks(bench: Bench, part: str) -> list[str]:
    """What a part consists of; each leaves a file."""
    if part == "sharing":
        return ["2"] if bench.toy else ["1", "2", "4"]
    if part == "quality":
        minutes = ["0.02"] if bench.toy else ["5", "15", "45"]
        data = ["digits"] if bench.toy else ["fashion_mnist", "cifar10"]
        who = ["diffsweep", "smalldiffusion"]
        if find_spec("smalldiffusion") is None:
            print("smalldiffusion is left out: pip install 'diffsweep[benchmark]' to compare with it", flush=True)
            who.remove("smalldiffusion")
        return [f"{name}-{some}-{one}" for name in data for some in minutes for one in who]
    return list(bench.networks())


def write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def run(bench: Bench, parts: Iterable[str]) -> int:
    """Do what has no file yet; the exit code."""
    for part in parts:
        for task in tasks(bench, part):
            path = bench.out / f"{part}-{task}.json"
            if path.exists():
                continue
            # Nothing but a quality run can be stopped on its way.
            if bench.left < (0 if bench.toy else 60 if part == "quality" else 240):
                return LEFT
            print(f"{part} {task}", flush=True)
            found = PARTS[part](bench, task)
            if found is None:
                return LEFT
            write(path, {**found, "device": bench.name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")})
    return 0


def rows(out: Path) -> Iterator[str]:
    """The tables of what has been measured."""
    for part in PARTS:
        files = sorted(out.glob(f"{part}-*.json"))
        found = {path.stem.removeprefix(f"{part}-"): json.loads(path.read_text()) for path in files}
        if not found:
            continue
        flat = {task: {key: text(value) for key, value in one.items()} for task, one in found.items()}
        keys = list(dict.fromkeys(key for one in flat.values() for key in one))
        yield f"| {part} | {' | '.join(keys)} |"
        yield f"|{'---|' * (len(keys) + 1)}"
        for task, one in flat.items():
            yield f"| {task} | {' | '.join(one.get(key, '') for key in keys)} |"
        yield ""


def text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(one)}" for key, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return "" if value is None else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--toy", action="store_true", help="toy sizes, on any machine")
    parser.add_argument("--report", action="store_true", help="only the tables")
    parser.add_argument("--out", type=Path, default=HERE / "gpu", help="folder of the files (%(default)s)")
    parser.add_argument("--seconds", type=float, default=PART, help="that one run may take (%(default)s)")
    parser.add_argument("--peak", type=float, help="bfloat16 FLOP/s of the device, if it is not known here")
    parser.add_argument("--override", action="append", default=[], help="KEY=VALUE for all runs, as dataset.root=...")
    args = parser.parse_args()
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown)}: choose of {', '.join(PARTS)}")
    code = 0
    if not args.report:
        bench = Bench(args)
        if bench.device.type != "cuda" and not args.toy:
            parser.error("there is no GPU here: --toy shows that everything runs")
        code = run(bench, args.parts or PARTS)
    print("\n".join(rows(args.out)))
    if code == LEFT:
        print("something is left: the same command goes on")
    return code


if __name__ == "__main__":
    sys.exit(main())
