"""The space that a latent diffusion works in: latents of an autoencoder, scaled to zero mean and unit variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.autoencoders.autoencoder import Autoencoder, Latents
from diffsweep.data.modality import Modality
from diffsweep.mistakes import whole


@dataclass(frozen=True, eq=False)
class Scale:
    """Per channel (C,): what a diffusion sees is (latent - mean) / std."""

    mean: Tensor
    std: Tensor

    def normalise(self, latents: Latents) -> Tensor:
        """What a diffusion sees of latents (N, C, H, W), float32."""
        x = latents.value.float()
        return (x - self._shaped(self.mean, x)) / self._shaped(self.std, x)

    def denormalise(self, x: Tensor) -> Latents:
        """The inverse of `normalise`."""
        return Latents(x * self._shaped(self.std, x) + self._shaped(self.mean, x))

    @staticmethod
    def _shaped(value: Tensor, x: Tensor) -> Tensor:
        return value.to(x.device).view(-1, 1, 1)


class LatentSpace:
    """From stored images to what a diffusion sees, and back, in batches of its own size.

    Args:
        autoencoder: whose weights may be loaded later, see `load`.
        modality: of the images, which says how they are stored.
        batch_size: images that go through the autoencoder at a time, >= 1.

    Raises:
        ValueError: for a bad value.
    """

    def __init__(self, autoencoder: Autoencoder, modality: Modality, batch_size: int) -> None:
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.modality = modality
        self.batch_size = whole("batch_size", batch_size, 1)
        channels = autoencoder.latent_shape[0]
        self.scale = Scale(torch.zeros(channels), torch.ones(channels))
        # Of the autoencoder whose weights these are; None for none yet.
        self.signature: str | None = None

    def load(self, weights: dict[str, Tensor], scale: Scale, signature: str) -> None:
        """Take the weights of a finished autoencoder, its scale and its name.

        Raises:
            ValueError: if they are those of another network.
        """
        try:
            self.autoencoder.load_state_dict(weights)
        except RuntimeError as error:
            line = " ".join(str(error).split())[:300]
            raise ValueError(f"the weights of autoencoder {signature} do not fit its config: {line}") from error
        self.scale, self.signature = scale, signature

    def latents(self, stored: Tensor) -> Latents:
        """The latents of stored images, not scaled."""
        parts = stored.split(self.batch_size)
        self.autoencoder.to(stored.device)
        with torch.no_grad():
            return Latents(torch.cat([self.autoencoder.encode(self.modality.encode(part)).value for part in parts]))

    def images(self, latents: Latents) -> Tensor:
        """The stored images of latents that are not scaled; a pixel that the decoder gives no number for is grey."""
        self.autoencoder.to(latents.value.device)
        with torch.no_grad():
            found = [
                self.modality.decode(self.autoencoder.decode(Latents(part)).float().nan_to_num(0, 1, -1))
                for part in latents.value.split(self.batch_size)
            ]
        return torch.cat(found)

    def encode(self, stored: Tensor) -> Tensor:
        """What a diffusion sees of stored images."""
        return self.scale.normalise(self.latents(stored))

    def decode(self, x: Tensor) -> Tensor:
        """The stored images of what a diffusion sees."""
        return self.images(self.scale.denormalise(x))

    def reconstructed(self, stored: Tensor) -> Tensor:
        """Stored images after both ways."""
        return self.images(self.latents(stored))
