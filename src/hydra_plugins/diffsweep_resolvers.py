"""Resolvers of our configs, known wherever Hydra composes.

`${pictures:FIELD}` asks the pictures of a dataset, `${least_regret:NAME,NFE}` the table of the default sampler;
`${train_command:}` is how a run is started from the working folder.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def _pictures(field: str, *, _parent_: DictConfig) -> Any:
    from diffsweep.data.packing import field_of_pictures
    from diffsweep.mistakes import shown

    for key in ("path", "cache"):
        value = _parent_.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"dataset.{key}={shown(value)} must name a folder")
    return field_of_pictures(field, _parent_)


def _train_command() -> str:
    from diffsweep.project import train_command

    return train_command()


def _least_regret(name: str, nfe: Any) -> Any:
    from diffsweep.least_regret import parameter

    return parameter(name, nfe)


OmegaConf.register_new_resolver("pictures", _pictures, replace=True)
OmegaConf.register_new_resolver("train_command", _train_command, replace=True)
OmegaConf.register_new_resolver("least_regret", _least_regret, replace=True)
