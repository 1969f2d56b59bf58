"""What every autoencoder can do: images to latents and back, and what a training asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from diffsweep.mistakes import BadValue

if TYPE_CHECKING:
    from diffsweep.autoencoders.latent_space import Scale


@dataclass(frozen=True)
class Latents:
    """Latents as an encoder gives them, before they are scaled to unit variance: (N, C, H, W).

    What a diffusion works on is a plain tensor; only `Scale` turns one into the other, so that nothing is scaled twice,
    or not at all.
    """

    value: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """An image that went through an autoencoder while it is trained.

    Attributes:
        x: (N, C, H, W), about [-1, 1].
        regularization: what keeps latents small, one number; its unit is that of `Losses.regularization`.
    """

    x: Tensor
    regularization: Tensor


class Autoencoder(nn.Module, ABC):
    """From images to latents and back.

    Args:
        shape: (channels, height, width) of images, in [-1, 1].
        latent_shape: (channels, height, width) of their latents.

    Attributes:
        network: of diffusers, AutoencoderKL or VQModel; every subclass makes its own.
    """

    network: Any

    def __init__(self, shape: Sequence[int], latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(size) for size in shape)
        self.latent_shape = tuple(int(size) for size in latent_shape)
        if len(self.shape) != 3:
            raise BadValue("shape", list(self.shape), "must be (channels, height, width): autoencoders are for images")

    @abstractmethod
    def encode(self, x: Tensor) -> Latents:
        """The latents of images (N, *shape); the same for the same image."""

    @abstractmethod
    def decode(self, latents: Latents) -> Tensor:
        """The images (N, *shape) of latents (N, *latent_shape); values may lie beyond [-1, 1]."""

    @abstractmethod
    def reconstruct(self, x: Tensor, noise: Tensor) -> Reconstruction:
        """Images (N, *shape) after both ways, with unit noise (N, *latent_shape) for a posterior that is random."""

    @abstractmethod
    def prior(self, noise: Tensor) -> Latents:
        """Latents as nobody has encoded them, of unit noise (N, *latent_shape)."""

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights of the decoder's last layer, by whose gradients losses are balanced."""
        return self.network.decoder.conv_out.weight

    @property
    def given_scale(self) -> Scale | None:
        """The scale that comes with the weights; None if it is to be measured."""
        return None
