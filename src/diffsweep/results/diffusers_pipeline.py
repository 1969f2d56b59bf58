"""A model of ours in the format of diffusers: a network that is loaded by `from_pretrained`, and a pipeline around it.

After `import diffsweep.results.diffusers_pipeline` a folder that `diffsweep export` wrote loads without remote code:

    from diffsweep.results.diffusers_pipeline import DenoiserPipeline
    pictures = DenoiserPipeline.from_pretrained("my-model")(batch_size=4).images

The network's config.json has the resolved config of the run, as far as it says what is built. Whatever it names is
built under the rules of `runs.trust`: parts of this package and of torch, and what your own conf/ names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffsweep.diffusion import Condition, Denoiser, Level, Sampler
from diffsweep.former_names import with_current_keys

# Latents that are decoded at a time.
_DECODED = 16


class DenoiserModel(ModelMixin, ConfigMixin):
    """E[x0 | x_t] of a run, called as `model(x, level, condition)`.

    Args:
        run: The resolved config: schedule, diffuser, condition, backbone, sampler, guidance.
        shape: Of one example.
        classes: Labels of the data; 0 for none.
        sigma_data: Root mean square of the data.
        latent_scale: Mean and standard deviation of latents, by channel, for a model that works in such; else None.

    Raises:
        ValueError: for a config that names code which is not trusted, or describes no model.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        run: Mapping[str, Any],
        shape: list[int],
        classes: int = 0,
        sigma_data: float = 0.5,
        latent_scale: list[list[float]] | None = None,
    ) -> None:
        from diffsweep.runs.instantiate import make, make_denoiser
        from diffsweep.runs.trust import check_targets

        super().__init__()
        cfg = OmegaConf.create(with_current_keys(run))
        check_targets(cfg, Path(self.config_name))
        self.run = cfg
        dataset = SimpleNamespace(sigma_data=sigma_data)
        self.denoiser: Denoiser = make_denoiser(cfg, dataset, make(cfg, "schedule"), make(cfg, "diffuser"))

    def forward(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        """x0, of the shape of `x` (N, ...)."""
        return self.denoiser(x, level, condition)


class DenoiserPipeline(DiffusionPipeline):
    """Draws samples of a run as the run did: same sampler, spacing, guidance and number of network calls.

    Args:
        denoiser: The run's model.
        vae: The autoencoder in whose latents it works, AutoencoderKL or VQModel of diffusers; None if it works on
            pictures.
    """

    model_cpu_offload_seq = "denoiser->vae"
    _optional_components: ClassVar[list[str]] = ["vae"]

    def __init__(self, denoiser: DenoiserModel, vae: Any = None) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, vae=vae)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Pictures in [0, 1], as diffusers' pipelines give them.

        Args:
            batch_size: How many, if no noise is given.
            class_labels: int64 (N,); without them number i gets label i mod classes, where the model is told labels.
            noise: Unit noise to start from, (N, ...).
            generator: Source of noise.
            num_inference_steps: Network calls, in the place of the run's.
            output_type: pil, np, pt (in [0, 1]) or x0 (as the network has it, latents perhaps).
            return_dict: Whether to return an object with `images`, or a tuple.
        """
        from diffsweep.runs.instantiate import make

        model: Any = self.denoiser
        shape, classes = list(model.config["shape"]), int(model.config["classes"])
        if noise is None:
            source = generator if isinstance(generator, torch.Generator) else None
            noise = torch.randn(batch_size, *shape, generator=source)
        noise = noise.to(model.device)
        if class_labels is None and classes:
            class_labels = torch.arange(len(noise)) % classes
        condition = None if class_labels is None else Condition.of(label=class_labels.to(model.device))
        cfg: DictConfig = model.run
        if num_inference_steps is not None:
            cfg = OmegaConf.create(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
            cfg.sampler.nfe = num_inference_steps
        sampler: Sampler = make(cfg, "sampler")
        schedule = model.denoiser.schedule
        guided = make(cfg, "guidance")(model, sampler.levels(schedule))
        x0 = sampler(guided, noise, schedule=schedule, generator=generator, condition=condition)
        images: Any = x0
        if output_type != "x0":
            images = (self._decoded(x0) / 2 + 0.5).clamp(0, 1)
        if output_type in ("pil", "np"):
            images = images.cpu().permute(0, 2, 3, 1).float().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _decoded(self, x0: Tensor) -> Tensor:
        """Pictures, about [-1, 1], of what the network has."""
        vae: Any = self.vae
        scale = self.denoiser.config["latent_scale"]
        if vae is None or scale is None:
            return x0
        mean, std = (torch.tensor(one, device=x0.device).view(-1, 1, 1) for one in scale)
        parts = (x0 * std + mean).to(vae.dtype).split(_DECODED)
        return torch.cat([vae.decode(part).sample for part in parts]).to(x0.dtype)
