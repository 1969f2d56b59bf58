"""What of a finished run is written for diffusers: the network, the autoencoder, the language models, the scheduler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
from omegaconf import DictConfig, OmegaConf

from diffsweep.autoencoders.latent_dataset import LatentDataset
from diffsweep.conditioners.text import Text
from diffsweep.data.examples import Dataset
from diffsweep.diffusion import Denoiser
from diffsweep.results.resample import SampleRequest
from diffsweep.results.text_pipeline import LanguageModels

if TYPE_CHECKING:
    from diffsweep.interop.diffusers_export import StockModel

# Of a config: what the network's own part of a pipeline of ours is built from.
_OF_A_MODEL = ("schedule", "diffuser", "condition", "backbone", "sampler", "guidance")
_OWN = "DenoiserPipeline"


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A run's model with all that goes with it; nothing is written before all of that is known.

    Attributes:
        cfg: The config of the run.
        denoiser: The model, with its weights.
        dataset: Of its data; with its autoencoder, if it works in latents.
        stock: Its stock classes in diffusers; None for a pipeline of ours.
        languages: What its text is read by; None if it is told none.
    """

    cfg: DictConfig
    denoiser: Denoiser
    dataset: Dataset
    stock: StockModel | None
    languages: LanguageModels | None

    @classmethod
    def of(cls, request: SampleRequest) -> ExportedModel:
        """That of a run. Raises ValueError, in one line, for what no pipeline holds."""
        from diffsweep.interop.diffusers_export import stock_model
        from diffsweep.runs.autoencoder import finished_dataset
        from diffsweep.runs.instantiate import make
        from diffsweep.runs.load_fit import finished

        cfg, runs = request.cfg, request.fit.folder.parent.parent
        text = _text(cfg)
        if "weak" in cfg.guidance or "classifier" in cfg.guidance:
            raise ValueError(
                "its guidance asks a second model, which no pipeline holds: export another cell of it, or its training "
                f"{request.fit.signature}"
            )
        if cfg.backbone.get("frozen") is not None:
            raise ValueError("it steers another finished model, which no pipeline holds")
        dataset = finished_dataset(cfg, runs)
        denoiser = finished(runs, request.fit.signature)
        stock = stock_model(denoiser, make(cfg, "sampler"), make(cfg, "guidance"))
        languages = None if text is None else LanguageModels.of(text)
        if languages is not None:
            _check_text(languages, stock, dataset)
        elif isinstance(dataset, LatentDataset):
            # Of the stock pipelines without a text none has latents that are scaled by channel.
            stock = None
        return cls(cfg, denoiser, dataset, stock, languages)

    @property
    def pipeline(self) -> str:
        """Name of the pipeline's class."""
        if self.languages is not None:
            return self.languages.pipeline
        if self.stock is None:
            return _OWN
        return "DiTPipeline" if type(self.stock.network).__name__.startswith("DiT") else "DDIMPipeline"

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes that load what is written."""
        if self.stock is None:
            return ["diffsweep.results.diffusers_pipeline.DenoiserPipeline"]
        if self.languages is not None:
            return [f"diffusers.{self.pipeline}"]
        return [f"diffusers.{type(self.stock.network).__name__}", f"diffusers.{self.stock.scheduler[0]}"]

    def write(self, folder: Path) -> None:
        """Write all parts into an empty folder."""
        if self.stock is None:
            self._write_own(folder)
            return
        stock = self.stock
        kind, settings = stock.scheduler
        stock.network.save_pretrained(folder / stock.part)
        getattr(diffusers, kind)(**settings).save_pretrained(folder / "scheduler")
        index: dict[str, Any] = {
            "_class_name": self.pipeline,
            "_diffusers_version": diffusers.__version__,
            stock.part: ["diffusers", type(stock.network).__name__],
            "scheduler": ["diffusers", kind],
        }
        if isinstance(self.dataset, LatentDataset):
            network = self.dataset.space.autoencoder.network
            network.save_pretrained(folder / "vae")
            index["vae"] = ["diffusers", type(network).__name__]
        if self.languages is not None:
            self.languages.write(folder)
            index |= self.languages.entries()
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _write_own(self, folder: Path) -> None:
        from diffsweep.results.diffusers_pipeline import DenoiserModel, DenoiserPipeline

        plain: Any = OmegaConf.to_container(self.cfg, resolve=True)
        scale = vae = None
        if isinstance(self.dataset, LatentDataset):
            space = self.dataset.space
            scale, vae = [space.scale.mean.tolist(), space.scale.std.tolist()], space.autoencoder.network
        model = DenoiserModel(
            run={key: plain[key] for key in _OF_A_MODEL if key in plain},
            shape=list(self.dataset.shape),
            classes=int(plain["dataset"].get("classes") or 0),
            sigma_data=float(self.dataset.sigma_data),
            latent_scale=scale,
        )
        model.denoiser.load_state_dict(self.denoiser.state_dict())
        DenoiserPipeline(denoiser=model.eval(), vae=vae).save_pretrained(folder)

    def use(self, name: str) -> list[str]:
        """Lines of Python that draw samples of what was written under a name."""
        if self.languages is not None and self.stock is not None:
            call = "".join(f", {key}={value:g}" for key, value in self.stock.call.items())
            return [
                f"from diffusers import {self.pipeline}",
                "",
                f'pipeline = {self.pipeline}.from_pretrained("{name}")',
                f'pictures = pipeline("a text", num_inference_steps={self.stock.steps}{call}).images',
            ]
        if self.stock is None:
            return [
                f"from diffsweep.results.diffusers_pipeline import {_OWN}",
                "",
                f'pictures = {_OWN}.from_pretrained("{name}")(batch_size=4).images',
            ]
        network, scheduler = type(self.stock.network).__name__, self.stock.scheduler[0]
        return [
            f"from diffusers import {network}, {scheduler}",
            "",
            f'network = {network}.from_pretrained("{name}", subfolder="{self.stock.part}")',
            f'scheduler = {scheduler}.from_pretrained("{name}", subfolder="scheduler")',
            f"scheduler.set_timesteps({self.stock.steps})",
        ]


def _text(cfg: DictConfig) -> Text | None:
    """The text that the model of a config is told. Raises ValueError for what no pipeline passes on."""
    from diffsweep.runs.instantiate import make_conditioners

    conditioners = make_conditioners(cfg)
    found = [one for one in conditioners.values() if isinstance(one, Text)]
    others = [name for name, one in conditioners.items() if name != "label" and one not in found]
    if others:
        raise ValueError(f"its model is told {others[0]}, which no pipeline passes on: only labels are")
    return found[0] if found else None


def _check_text(languages: LanguageModels, stock: StockModel | None, dataset: Dataset) -> None:
    """Refuse a model that is told a text and that diffusers' own pipeline would not draw from as we do."""
    if stock is None:
        raise ValueError("its model is told text, which no pipeline passes on: only labels are")
    given = dataset.space.autoencoder.given_scale if isinstance(dataset, LatentDataset) else None
    if given is None:
        raise ValueError(
            f"its network is that of a {languages.pipeline}, which needs an autoencoder with one scale of its own: "
            "choose autoencoder=pretrained"
        )
    if bool(given.mean.any()) and languages.ignores_shift:
        raise ValueError(f"its autoencoder has a shift_factor, which {languages.pipeline} leaves out")
