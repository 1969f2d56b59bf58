"""Small models with random weights in the formats of other programs, written by those programs themselves."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}
DIT: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 1,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 10,
    "norm_num_groups": 4,
}
PIXART: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 1,
    "out_channels": 1,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
    "caption_channels": None,
    "cross_attention_dim": None,
    "norm_num_groups": 4,
    "use_additional_conditions": False,
}

AUTOENCODER: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 3,
    "norm_num_groups": 4,
    "sample_size": 8,
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
}


def network(name: str = "UNet2DModel", **changes: Any) -> Any:
    """A network of diffusers with random weights, none of them zero, in evaluation mode."""
    import diffusers

    known = {"DiTTransformer2DModel": DIT, "PixArtTransformer2DModel": PIXART, "AutoencoderKL": AUTOENCODER}
    base = known.get(name, UNET)
    generator = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = getattr(diffusers, name)(**(base | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            # Some layers begin at zero, and would hide what comes before them.
            if not bool(parameter.any()):
                parameter.normal_(std=0.02)
    torch.random.set_rng_state(generator)
    return model.eval()


def folder(place: Path, model: Any, scheduler: Any, part: str = "unet") -> Path:
    """A folder as a pipeline of diffusers saves it."""
    import json

    model.save_pretrained(place / part)
    scheduler.save_pretrained(place / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": "0.42.1",
        part: ["diffusers", type(model).__name__],
        "scheduler": ["diffusers", type(scheduler).__name__],
    }
    (place / "model_index.json").write_text(json.dumps(index))
    return place


@functools.cache
def ddpm() -> Path:
    """A folder of an unconditional U-Net for 8x8 grey pictures with DDPM's scheduler, made once."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    # It lives as long as the process does.
    place = tempfile.TemporaryDirectory(prefix="checkpoint-")
    _KEPT.append(place)
    return folder(Path(place.name), network(), DDPMScheduler())


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def rewrite(place: Path, **changes: Any) -> None:
    """Another U-Net in the place of the one in a folder."""
    network(**changes).save_pretrained(place / "unet")


@functools.cache
def autoencoder_kl() -> Path:
    """A folder of diffusers' AutoencoderKL for grey images of 8 x 8, with a scale and a shift."""
    place = Path(tempfile.mkdtemp(prefix="autoencoder-"))
    network("AutoencoderKL").save_pretrained(place)
    return place
