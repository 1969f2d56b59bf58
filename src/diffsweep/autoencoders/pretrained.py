"""The network of a pretrained AutoencoderKL, with the scale that its config names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffsweep.autoencoders.autoencoder import Autoencoder, Latents, Reconstruction
from diffsweep.autoencoders.latent_shape import latent_shape
from diffsweep.autoencoders.latent_space import Scale
from diffsweep.autoencoders.levels import autoencoder_network
from diffsweep.autoencoders.vae_folder import vae_state
from diffsweep.mistakes import BadValue


class PretrainedKL(Autoencoder):
    """diffusers' AutoencoderKL as a folder has it.

    Args:
        shape: (channels, height, width) of images.
        folder: with config.json and weights, or with such a folder `vae`; it is read when the autoencoder is made.
        config: the network's settings, as config.json has them.
        weights: sha256 of its weights.

    Raises:
        ValueError: if diffusers is not installed, or for settings that make no network for these images.
    """

    def __init__(self, shape: Sequence[int], folder: str, config: Mapping[str, Any], weights: str) -> None:
        # Lists as JSON has them: a config's own cannot be written again.
        settings: dict[str, Any] = {
            str(key): list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for key, value in config.items()
        }
        channels = settings.get("block_out_channels", (64,))
        super().__init__(shape, latent_shape(shape, settings.get("latent_channels", 4), channels))
        if settings.get("in_channels", 3) != self.shape[0]:
            rule = f"must have {settings.get('in_channels', 3)} channels for this network"
            raise BadValue("shape", list(self.shape), rule)
        self.folder, self.weights = folder, weights
        self.network = autoencoder_network("AutoencoderKL", **settings)
        self._scaling, self._shift = settings.get("scaling_factor"), settings.get("shift_factor")

    def state(self) -> Mapping[str, Tensor]:
        """The weights in the folder, by their names here. Raises ValueError if they are others than asked for."""
        return {f"network.{name}": value for name, value in vae_state(self.folder, self.weights).items()}

    @property
    def given_scale(self) -> Scale | None:
        """(latent - shift_factor) * scaling_factor, if the config has them."""
        if not self._scaling:
            return None
        channels = self.latent_shape[0]
        return Scale(torch.full((channels,), float(self._shift or 0)), torch.full((channels,), 1 / self._scaling))

    def encode(self, x: Tensor) -> Latents:
        """The means of the posteriors."""
        return Latents(self.network.encode(x).latent_dist.mean)

    def decode(self, latents: Latents) -> Tensor:
        """See `Autoencoder.decode`."""
        return self.network.decode(latents.value).sample

    def reconstruct(self, x: Tensor, noise: Tensor) -> Reconstruction:
        """By the mean: it is not trained."""
        return Reconstruction(self.decode(self.encode(x)), x.new_zeros(()))

    def prior(self, noise: Tensor) -> Latents:
        """The noise itself, as spread out as the scale says."""
        scale = self.given_scale
        return Latents(noise) if scale is None else scale.denormalise(noise)
