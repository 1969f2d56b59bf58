"""The default sampler and others on trained networks, with guidance and without: the Frechet distance at equal cost.

The networks are the finished trainings of a folder of runs, each sampled from the same noises by every candidate.

    python train.py paths.runs=NETWORKS condition=label seed=0,1 -m
    python train.py paths.runs=NETWORKS experiment=fashion_mnist guidance=none training.steps=1500
    python benchmarks/sampler_networks.py NETWORKS              # goes on where it was stopped
    python benchmarks/sampler_networks.py NETWORKS --report     # the table from the JSON
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from solver_accuracy import CONF

from diffsweep.diffusion import Sampler
from diffsweep.evaluation.features import Features
from diffsweep.runs.build import Components
from diffsweep.scoring.measure import Baseline
from diffsweep.scoring.sampling import FeatureExtraction, Sampling
from diffsweep.scoring.weights import load_weights
from diffsweep.sweep.store.record import Fit

HERE = Path(__file__).parent
RESULTS = HERE / "sampler_networks.json"
CALLS = (4, 5, 7, 10, 20, 50)
GUIDANCES = ("none", "cfg")
SAMPLERS = (
    "sampler=recommended",
    "sampler=dpmpp_2m",
    "sampler=unipc sampler/spacing=time",
    "sampler=unipc sampler/spacing=beta",
)


class Network:
    """A finished training, sampled with or without guidance; its samples are scored as a cell's."""

    def __init__(self, fit: Fit, guidance: str, samples: int) -> None:
        cfg = OmegaConf.load(fit.cells()[0].config_file)
        assert isinstance(cfg, DictConfig)
        chosen = composed(f"guidance={guidance} condition=label sampler=dpmpp_2m")
        cfg.guidance, cfg.sampler = (
            OmegaConf.to_container(chosen[key], resolve=True) for key in ("guidance", "sampler")
        )
        cfg.evaluation.samples = samples
        scoring = Components.of(cfg).scoring
        self.name = f"{scoring.model.dataset.name}, seed {cfg.seed}"
        load_weights(scoring.model.denoiser, fit)
        self.scoring = scoring
        self.main = scoring.evaluation.main
        self.baseline = Baseline.of(
            scoring.model.dataset,
            scoring.evaluation,
            scoring.settings,
            balanced=bool(scoring.model.conditioners),
            show=False,
        )

    def distance(self, sampler: Sampler) -> float | None:
        """The main distance of its samples; None if one of them is not finite."""
        scoring = self.scoring
        extraction = FeatureExtraction(scoring.evaluation.extractor, scoring.evaluation.outputs)
        sampling = Sampling(scoring.model, sampler, scoring.settings.seed, scoring.guidance, extraction).eval()
        with torch.inference_mode():
            numbers = torch.arange(scoring.settings.samples).split(scoring.settings.batch_size)
            batches = [sampling.predict_step(part, i) for i, part in enumerate(numbers)]
        if not all(bool(batch.finite.all()) for batch in batches):
            return None
        labels = sampling.requests.classes(scoring.settings.samples)
        features = Features.collect((batch.outputs for batch in batches), labels, scoring.evaluation.outputs)
        return scoring.evaluation.values(features, self.baseline.reference)[self.main]


def composed(words: str) -> DictConfig:
    """The config that these words of a command line make."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=words.split())


def measure(runs: Path, samples: int, calls: Sequence[int], samplers: Sequence[str], results: Path) -> None:
    """Add to the file what it lacks, number by number."""
    records: list[dict[str, Any]] = json.loads(results.read_text()) if results.is_file() else []
    known = {tuple(record[key] for key in ("fit", "guidance", "sampler", "nfe", "samples")) for record in records}
    fits = [Fit(folder) for folder in sorted((runs / "fits").iterdir()) if Fit(folder).done]
    for fit, guidance in itertools.product(fits, GUIDANCES):
        wanted = [
            (sampler, nfe)
            for sampler, nfe in itertools.product(samplers, calls)
            if (fit.signature, guidance, sampler, nfe, samples) not in known
        ]
        if not wanted:
            continue
        network = Network(fit, guidance, samples)
        for words, nfe in wanted:
            distance = network.distance(instantiate(composed(f"{words} sampler.nfe={nfe}").sampler))
            records.append(
                {
                    "network": network.name,
                    "fit": fit.signature,
                    "guidance": guidance,
                    "sampler": words,
                    "nfe": nfe,
                    "samples": samples,
                    "metric": network.main,
                    "distance": None if distance is None else float(f"{distance:.4g}"),
                    "floor": float(f"{network.baseline.floor[network.main]:.4g}"),
                }
            )
            print(records[-1], flush=True)
            results.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")


def table(results: Path) -> str:
    """A row for each network, guidance and sampler."""
    records: list[dict[str, Any]] = json.loads(results.read_text())
    calls = sorted({record["nfe"] for record in records})
    rows = ["| network | guidance | sampler | " + " | ".join(map(str, calls)) + " | floor |"]
    rows.append("|---" * (4 + len(calls)) + "|")
    groups: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["network"], record["guidance"], record["sampler"]), {})[record["nfe"]] = record
    for (network, guidance, sampler), found in groups.items():
        cells = [f"{found[nfe]['distance']:.3g}" if nfe in found and found[nfe]["distance"] else "" for nfe in calls]
        floor = next(iter(found.values()))["floor"]
        rows.append(f"| {network} | {guidance} | `{sampler}` | {' | '.join(cells)} | {floor:.3g} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of runs")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--calls", type=int, nargs="+", default=list(CALLS))
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), metavar="WORDS")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only the table of what is there")
    args = parser.parse_args()
    if not args.report:
        torch.set_num_threads(1)
        measure(args.runs, args.samples, args.calls, args.samplers, args.results)
    print(table(args.results))


if __name__ == "__main__":
    main()
