"""Small pipelines of text-to-image models with weights at random, in the format in which diffusers saves them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import text_encoders
from prerequisites import need_module


def clip(folder: Path, width: int = 16, layers: int = 2, length: int = 12) -> tuple[Any, Any]:
    """A CLIP text encoder and its tokenizer, which knows small letters."""
    transformers = need_module("transformers")
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=length, pad_token="<|endoftext|>"
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
        projection_dim=width,
        # Of the usual 0.02 all texts would be nearly the same.
        initializer_factor=5.0,
    )
    return transformers.CLIPTextModel(config).eval(), tokenizer


def _clip_with_projection(folder: Path, width: int) -> tuple[Any, Any]:
    transformers = need_module("transformers")
    model, tokenizer = clip(folder, width)
    return transformers.CLIPTextModelWithProjection(model.config).eval(), tokenizer


def _t5(width: int) -> tuple[Any, Any]:
    transformers = need_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(text_encoders.tiny()))
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=width, d_ff=64, d_kv=8, num_layers=2, num_heads=4, initializer_factor=3.0
    )
    return transformers.T5EncoderModel(config).eval(), tokenizer


def autoencoder(channels: int = 3, latent_channels: int = 4, **scale: float) -> Any:
    """A small AutoencoderKL, whose latents are half as high and wide and, after this factor, of about unit variance."""
    diffusers = need_module("diffusers")
    return diffusers.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=latent_channels,
        sample_size=16,
        **{"scaling_factor": 0.5, **scale},
    )


@functools.cache
def of_digits() -> Path:
    """The folder of a pipeline whose latents have the shape of digits, in this process."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-")) / "sd"
    stable_diffusion(folder, channels=1, latent_channels=1)
    return folder


def _saved(folder: Path, kind: str, parts: Callable[[], dict[str, Any]], **settings: Any) -> Any:
    """A pipeline of a class of diffusers, saved to a folder, of parts that are made with a seed of their own.

    Language models come as pairs with their tokenizers, in their order, under `texts`; None for one that is left out.
    """
    diffusers = need_module("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = parts()
    for number, pair in enumerate(made.pop("texts")):
        end = f"_{number + 1}" if number else ""
        made[f"text_encoder{end}"], made[f"tokenizer{end}"] = pair or (None, None)
    pipeline = getattr(diffusers, kind)(**made, **settings)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def _unet(channels: int, crossed: int, width: int, **more: Any) -> Any:
    """A U-Net of two levels, of which one attends to tokens of a width."""
    diffusers = need_module("diffusers")
    kinds = [("CrossAttn" if level == crossed else "", level) for level in (0, 1)]
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind, _ in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind, _ in reversed(kinds)),
        cross_attention_dim=width,
        norm_num_groups=4,
        **more,
    )


def stable_diffusion(folder: Path, prediction: str = "epsilon", channels: int = 3, latent_channels: int = 4) -> Any:
    """A pipeline of the kind of Stable Diffusion 1 and 2, saved to a folder."""
    diffusers = need_module("diffusers")

    def parts() -> dict[str, Any]:
        return {
            "texts": [clip(folder / "vocabulary")],
            "unet": _unet(latent_channels, 0, 16, attention_head_dim=4),
            "vae": autoencoder(channels, latent_channels),
            "scheduler": diffusers.DDIMScheduler(
                beta_schedule="scaled_linear",
                beta_start=0.00085,
                beta_end=0.012,
                clip_sample=False,
                set_alpha_to_one=True,
                steps_offset=1,
                timestep_spacing="trailing",
                prediction_type=prediction,
            ),
        }

    unchecked: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return _saved(folder, "StableDiffusionPipeline", parts, **unchecked)


def stable_diffusion_xl(folder: Path) -> Any:
    """A pipeline of the kind of Stable Diffusion XL without refiner, saved to a folder."""
    diffusers = need_module("diffusers")

    def parts() -> dict[str, Any]:
        return {
            "texts": [clip(folder / "vocabulary"), _clip_with_projection(folder / "vocabulary", 24)],
            "unet": _unet(
                4,
                1,
                16 + 24,
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 24,
            ),
            "vae": autoencoder(),
            "scheduler": diffusers.EulerDiscreteScheduler(
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing"
            ),
        }

    return _saved(folder, "StableDiffusionXLPipeline", parts, add_watermarker=False)


def stable_diffusion_3(folder: Path, *, t5: bool = True) -> Any:
    """A pipeline of the kind of Stable Diffusion 3, saved to a folder."""
    diffusers = need_module("diffusers")

    def parts() -> dict[str, Any]:
        clips = [_clip_with_projection(folder / "vocabulary", width) for width in (16, 24)]
        return {
            "texts": [*clips, _t5(48) if t5 else None],
            "transformer": diffusers.SD3Transformer2DModel(
                sample_size=8,
                patch_size=1,
                in_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=48,
                pooled_projection_dim=16 + 24,
                out_channels=4,
                pos_embed_max_size=16,
            ),
            "vae": autoencoder(shift_factor=0.1),
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        }

    return _saved(folder, "StableDiffusion3Pipeline", parts)


def flux(folder: Path, *, distilled: bool = True) -> Any:
    """A pipeline of the kind of Flux, saved to a folder: dev, which is told a guidance, or schnell, which is not."""
    diffusers = need_module("diffusers")
    # A short range, so that the shift of few tokens differs from that of the base.
    dynamic = {"use_dynamic_shifting": True, "shift": 3.0, "base_image_seq_len": 8, "max_image_seq_len": 64}

    def parts() -> dict[str, Any]:
        return {
            "texts": [clip(folder / "vocabulary"), _t5(48)],
            "transformer": diffusers.FluxTransformer2DModel(
                in_channels=4 * 16,
                num_layers=2,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                pooled_projection_dim=16,
                guidance_embeds=distilled,
                axes_dims_rope=(4, 6, 6),
            ),
            "vae": autoencoder(latent_channels=16, shift_factor=0.1),
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**(dynamic if distilled else {"shift": 1.0})),
        }

    return _saved(folder, "FluxPipeline", parts)
