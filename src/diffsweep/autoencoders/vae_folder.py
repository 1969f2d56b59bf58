"""A folder of diffusers' AutoencoderKL: settings and weights, read without torch where configs are composed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.mistakes import spell

if TYPE_CHECKING:
    from torch import Tensor

_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
# Of the config, what says nothing of the network.
_ABOUT = ("_class_name", "_diffusers_version", "_name_or_path")


def vae_config(folder: object) -> dict[str, Any]:
    """The settings of the network in a folder, as diffusers has them. Raises ValueError if it holds none."""
    path = _in(folder, _CONFIG)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"autoencoder.network.folder={folder}: {path} cannot be read as JSON") from error
    if not isinstance(content, dict) or content.get("_class_name") != "AutoencoderKL":
        found = content.get("_class_name") if isinstance(content, dict) else None
        raise ValueError(f"autoencoder.network.folder={folder} has a {found}: choose a folder of an AutoencoderKL")
    return {key: value for key, value in content.items() if key not in _ABOUT}


def vae_digest(folder: object) -> str:
    """sha256 of the weights in a folder."""
    digest = hashlib.sha256()
    path = _in(folder, _WEIGHTS)
    try:
        with path.open("rb") as stream:
            while block := stream.read(2**24):
                digest.update(block)
    except OSError as error:
        raise ValueError(f"autoencoder.network.folder={folder}: {path} cannot be read") from error
    return digest.hexdigest()


def vae_state(folder: str, weights: str) -> Mapping[str, Tensor]:
    """The weights in a folder by their names in the network. Raises ValueError if they have another digest now."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if vae_digest(folder) != weights:
        raise ValueError(f"autoencoder.network.folder={folder} has other weights now than when this was asked for")
    try:
        return load_file(_in(folder, _WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder}/{_WEIGHTS} cannot be read: {' '.join(str(error).split())}") from error


def _in(folder: object, name: str) -> Path:
    if not isinstance(folder, str) or not folder.strip():
        raise ValueError(f"autoencoder.network.folder={spell(folder)} must name a folder of diffusers' AutoencoderKL")
    # The whole of a latent diffusion has it below.
    places = [Path(folder, name), Path(folder, "vae", name)]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise ValueError(f"autoencoder.network.folder={folder} holds no {name} of diffusers' AutoencoderKL")
    return found
