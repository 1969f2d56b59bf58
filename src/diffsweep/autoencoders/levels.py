"""The levels of an autoencoder's network: what those of diffusers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diffsweep.autoencoders.latent_shape import latent_shape
from diffsweep.mistakes import whole


@dataclass(frozen=True)
class Levels:
    """Levels of convolutions, each but the last at twice the size of the next.

    Attributes:
        latent_channels: of the latents.
        channels: of each level, `block_out_channels` of diffusers.
        layers: residual layers of each level.
        groups: of each group norm.
        attention: whether the coarsest level attends.

    Raises:
        ValueError: for a number below 1.
    """

    latent_channels: int
    channels: Sequence[int]
    layers: int
    groups: int
    attention: bool

    def __post_init__(self) -> None:
        whole("latent_channels", self.latent_channels, 1)
        whole("layers", self.layers, 1)

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """That of the latents of images. Raises ValueError if they cannot be halved so often."""
        return latent_shape(shape, self.latent_channels, self.channels)

    def network(self, kind: Literal["AutoencoderKL", "VQModel"], shape: Sequence[int], **more: Any) -> Any:
        """A network of diffusers for images of a shape.

        Raises:
            ValueError: if diffusers is not installed, or for a setting that makes no network.
        """
        count = len(self.channels)
        settings = {
            "in_channels": shape[0],
            "out_channels": shape[0],
            "down_block_types": ("DownEncoderBlock2D",) * count,
            "up_block_types": ("UpDecoderBlock2D",) * count,
            "block_out_channels": tuple(self.channels),
            "layers_per_block": self.layers,
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.groups,
            "sample_size": shape[-1],
            "scaling_factor": 1.0,
            "mid_block_add_attention": self.attention,
        }
        return autoencoder_network(kind, **settings, **more)


def autoencoder_network(kind: Literal["AutoencoderKL", "VQModel"], **settings: Any) -> Any:
    """An autoencoder's network of diffusers, of its own settings. Raises ValueError if diffusers is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(f"an autoencoder needs diffusers ({error}): pip install 'diffsweep[diffusers]'") from error
    return getattr(diffusers, kind)(**settings)
