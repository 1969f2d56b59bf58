"""Resolvers of our configs, known wherever Hydra composes.

`${pictures:FIELD}` asks the pictures of a dataset; `${extractor_of:DATASET}` is the option of `extractor` that it has.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffsweep.sweep.plan.dataset_extractor import resolve_extractors_of_datasets


def _pictures(field: str, *, _parent_: DictConfig) -> Any:
    from diffsweep.data.packing import field_of_pictures
    from diffsweep.mistakes import shown

    for key in ("path", "cache"):
        value = _parent_.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"dataset.{key}={shown(value)} must name a folder")
    return field_of_pictures(field, _parent_)


OmegaConf.register_new_resolver("pictures", _pictures, replace=True)
resolve_extractors_of_datasets()
