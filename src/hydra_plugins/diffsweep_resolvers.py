"""Resolvers of our configs, known wherever Hydra composes.

`${pictures:FIELD}` asks the pictures of a dataset; `${extractor_of:DATASET}` is the option of `extractor` that it has.
`${recommended:NAME,NFE}` asks the table of the default sampler, `${checkpoint:FIELD}` the model at `pretrained`;
`${train_command:}` is how a run is started in the working folder.
`${videos:FIELD}` and `${sounds:FIELD}` ask its videos and sounds.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffsweep.sweep.plan.dataset_extractor import resolve_extractors_of_datasets


def _pictures(field: str, *, _parent_: DictConfig) -> Any:
    from diffsweep.data.packing import field_of_pictures

    _check_places(_parent_)
    return field_of_pictures(field, _parent_)


def _videos(field: str, *, _parent_: DictConfig) -> Any:
    from diffsweep.data.clip_packing import VideoPacking, field_of_clips

    _check_places(_parent_)
    return field_of_clips(VideoPacking, field, _parent_)


def _sounds(field: str, *, _parent_: DictConfig) -> Any:
    from diffsweep.data.clip_packing import SoundPacking, field_of_clips

    _check_places(_parent_)
    return field_of_clips(SoundPacking, field, _parent_)


def _check_places(config: DictConfig) -> None:
    from diffsweep.mistakes import shown

    for key in ("path", "cache"):
        value = config.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"dataset.{key}={shown(value)} must name a folder")


def _train_command() -> str:
    from diffsweep.project import train_command

    return train_command()


def _recommended(name: str, nfe: Any) -> Any:
    from diffsweep.recommended import parameter

    return parameter(name, nfe)


def _checkpoint(field: str, *, _root_: DictConfig) -> Any:
    from diffsweep.runs.pretrained import find

    paths = _root_.get("paths") or {}
    return find(_root_.get("pretrained"), paths.get("runs", "runs")).field(field)


OmegaConf.register_new_resolver("pictures", _pictures, replace=True)
OmegaConf.register_new_resolver("train_command", _train_command, replace=True)
OmegaConf.register_new_resolver("recommended", _recommended, replace=True)
OmegaConf.register_new_resolver("videos", _videos, replace=True)
OmegaConf.register_new_resolver("sounds", _sounds, replace=True)
OmegaConf.register_new_resolver("checkpoint", _checkpoint, replace=True)
resolve_extractors_of_datasets()
