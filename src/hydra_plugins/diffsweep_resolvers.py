"""Resolvers of our configs, known wherever Hydra composes.

`${pictures:FIELD}`, `${videos:FIELD}` and `${sounds:FIELD}` ask the collection of a dataset;
`${extractor_of:DATASET}` is the option of `extractor` that a dataset has; `${recommended:NAME,NFE}` asks the table of
the default sampler, `${checkpoint:FIELD}` the model at `pretrained`, `${text_encoder:FIELD}` the language model of
`condition=text`, `${clip:content}` the CLIP of `metric=clip_score`, `${prompts:}` are the texts that the key `prompts`
names, `${vae:FIELD}` the autoencoder at `autoencoder.network.folder`; `${space:FIELD}` is the shape or sigma_data of
what a network sees, data or latents, and `${latent_shape:}` the shape of latents; `${sweep_name:NAME,TIME}` is what a
sweep is called, by its time if it has no name; `${train_command:}` is how a run is started in the working folder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffsweep.sweep.plan.dataset_extractor import resolve_extractors_of_datasets
from diffsweep.sweep.plan.interpolated_defaults import build_choices_where_they_are_read


def _field_of_packed(decoder: str) -> Callable[..., Any]:
    def resolve(field: str, *, _parent_: DictConfig) -> Any:
        from diffsweep.data import decoders
        from diffsweep.data.packing import field_of_packed

        _check_places(_parent_)
        return field_of_packed(getattr(decoders, decoder), field, _parent_)

    return resolve


def _check_places(config: DictConfig) -> None:
    from diffsweep.mistakes import spell

    for key in ("path", "cache"):
        value = config.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"dataset.{key}={spell(value)} must name a folder")


def _train_command() -> str:
    from diffsweep.project import train_command

    return train_command()


def _sweep_name(name: Any, time: str) -> str:
    return time if name is None else str(name)


def _recommended(name: str, nfe: Any) -> Any:
    from diffsweep.recommended import parameter

    return parameter(name, nfe)


def _checkpoint(field: str, *, _root_: DictConfig) -> Any:
    from diffsweep.runs.pretrained import find

    paths = _root_.get("paths") or {}
    found = find(_root_.get("pretrained"), paths.get("runs", "runs"))
    return found.field(field, lambda: _space("shape", _root_=_root_))


def _prompts(*, _root_: DictConfig) -> Any:
    from diffsweep.data.prompts import prompts_of

    given = _root_.get("prompts")
    return prompts_of(OmegaConf.to_container(given) if OmegaConf.is_config(given) else given)


def _text_encoder(field: str, *, _parent_: DictConfig) -> Any:
    from diffsweep.conditioners.text_encoder import pipeline_content, width_of_tokens

    encoder = str(_parent_.get("encoder"))
    return width_of_tokens(encoder) if field == "width" else pipeline_content(encoder, _parent_.get("pipeline"))


def _clip(field: str, *, _parent_: DictConfig) -> Any:
    from diffsweep.mistakes import below
    from diffsweep.scoring.clip_folder import clip_content

    with below("evaluation.metrics.clip_score"):
        return {"content": clip_content}[field](_parent_.get("folder"))


def _space(field: str, *, _root_: DictConfig) -> Any:
    latents = (_root_.get("autoencoder") or {}).get("latent_shape")
    if latents is None:
        return OmegaConf.select(_root_, "dataset.shape.1" if field == "height" else f"dataset.{field}", default=64)
    # Latents are scaled to unit variance.
    return {"shape": latents, "height": latents[1], "sigma_data": 1.0}[field]


def _vae(field: str, *, _root_: DictConfig) -> Any:
    from diffsweep.autoencoders.vae_folder import vae_config, vae_digest

    network = _root_.autoencoder.network
    folder = None if OmegaConf.is_missing(network, "folder") else network.folder
    return {"config": vae_config, "weights": vae_digest}[field](folder)


def _latent_shape(*, _root_: DictConfig) -> Any:
    from diffsweep.autoencoders.latent_shape import latent_shape

    network = OmegaConf.to_container(_root_.autoencoder.network, resolve=True)
    assert isinstance(network, dict)
    settings = network.get("config", {})
    channels = network.get("channels", settings.get("block_out_channels"))
    return list(
        latent_shape(network["shape"], network.get("latent_channels", settings.get("latent_channels")), channels)
    )


for _name, _decoder in (("pictures", "PictureDecoder"), ("videos", "VideoDecoder"), ("sounds", "SoundDecoder")):
    OmegaConf.register_new_resolver(_name, _field_of_packed(_decoder), replace=True)
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
OmegaConf.register_new_resolver("train_command", _train_command, replace=True)
OmegaConf.register_new_resolver("recommended", _recommended, replace=True)
OmegaConf.register_new_resolver("checkpoint", _checkpoint, replace=True)
OmegaConf.register_new_resolver("prompts", _prompts, replace=True)
OmegaConf.register_new_resolver("text_encoder", _text_encoder, replace=True)
OmegaConf.register_new_resolver("clip", _clip, replace=True)
OmegaConf.register_new_resolver("space", _space, replace=True)
OmegaConf.register_new_resolver("vae", _vae, replace=True)
OmegaConf.register_new_resolver("latent_shape", _latent_shape, replace=True)
resolve_extractors_of_datasets()
build_choices_where_they_are_read()
