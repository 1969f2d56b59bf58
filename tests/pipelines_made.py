"""Small pipelines of text-to-image models with weights at random, in the format in which diffusers saves them."""

from __future__ import annotations

import functools
import json
import tempfile
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


def autoencoder(channels: int = 3, latent_channels: int = 4) -> Any:
    """A small AutoencoderKL, whose latents are a quarter of the size."""
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
    )


@functools.cache
def of_digits() -> Path:
    """The folder of a pipeline whose latents have the shape of digits, in this process."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-")) / "sd"
    stable_diffusion(folder, channels=1, latent_channels=1)
    return folder


def stable_diffusion(folder: Path, prediction: str = "epsilon", channels: int = 3, latent_channels: int = 4) -> Any:
    """A pipeline of the kind of Stable Diffusion 1 and 2, saved to a folder."""
    diffusers = need_module("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, tokenizer = clip(folder / "vocabulary")
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=latent_channels,
            out_channels=latent_channels,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        vae = autoencoder(channels, latent_channels)
        # Its latents have about unit variance after this factor, as those of the real one.
        vae.register_to_config(scaling_factor=0.5)
        scheduler = diffusers.DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=1,
            timestep_spacing="trailing",
            prediction_type=prediction,
        )
        pipeline = diffusers.StableDiffusionPipeline(
            vae=vae,
            text_encoder=encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def _clip_with_projection(folder: Path, width: int, length: int) -> tuple[Any, Any]:
    transformers = need_module("transformers")
    model, tokenizer = clip(folder, width, length=length)
    return transformers.CLIPTextModelWithProjection(model.config).eval(), tokenizer


def stable_diffusion_xl(folder: Path) -> Any:
    """A pipeline of the kind of Stable Diffusion XL without refiner, saved to a folder."""
    diffusers = need_module("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, tokenizer = clip(folder / "vocabulary", 16)
        second, other = _clip_with_projection(folder / "vocabulary", 24, 12)
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=40,
            attention_head_dim=(2, 4),
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
        )
        vae = autoencoder()
        vae.register_to_config(scaling_factor=0.5)
        scheduler = diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing"
        )
        pipeline = diffusers.StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=first,
            text_encoder_2=second,
            tokenizer=tokenizer,
            tokenizer_2=other,
            unet=unet,
            scheduler=scheduler,
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def stable_diffusion_3(folder: Path, *, t5: bool = True) -> Any:
    """A pipeline of the kind of Stable Diffusion 3, saved to a folder."""
    diffusers, transformers = need_module("diffusers"), need_module("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, tokenizer = _clip_with_projection(folder / "vocabulary", 16, 12)
        second, other = _clip_with_projection(folder / "vocabulary", 24, 12)
        third = last = None
        if t5:
            last = transformers.AutoTokenizer.from_pretrained(str(text_encoders.tiny()))
            config = transformers.T5Config(
                vocab_size=len(last), d_model=48, d_ff=64, d_kv=8, num_layers=2, num_heads=4, initializer_factor=3.0
            )
            third = transformers.T5EncoderModel(config).eval()
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=48,
            pooled_projection_dim=40,
            out_channels=4,
            pos_embed_max_size=16,
        )
        vae = autoencoder()
        vae.register_to_config(scaling_factor=0.5, shift_factor=0.1)
        pipeline = diffusers.StableDiffusion3Pipeline(
            vae=vae,
            text_encoder=first,
            text_encoder_2=second,
            text_encoder_3=third,
            tokenizer=tokenizer,
            tokenizer_2=other,
            tokenizer_3=last,
            transformer=transformer,
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline
