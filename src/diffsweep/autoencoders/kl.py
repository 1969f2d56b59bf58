"""An autoencoder whose latents are drawn from a Gaussian near the standard normal one: AutoencoderKL of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from diffsweep.autoencoders.autoencoder import Autoencoder, Latents, Reconstruction
from diffsweep.autoencoders.latent_shape import latent_shape
from diffsweep.mistakes import whole


def autoencoder_kl(settings: Mapping[str, Any]) -> nn.Module:
    """diffusers' AutoencoderKL of its own settings. Raises ValueError if it is not installed, or for a bad setting."""
    try:
        from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]
    except ImportError as error:
        raise ValueError("autoencoder=kl needs diffusers: pip install 'diffsweep[diffusers]'") from error
    return AutoencoderKL(**settings)


class KL(Autoencoder):
    """The first stage of latent diffusion (arXiv 2112.10752, section 3.1; Auto-Encoding Variational Bayes, 1312.6114).

    Args:
        shape: (channels, height, width) of images.
        latent_channels: of the latents.
        channels: of each level, its `block_out_channels`; each but the last halves the image.
        layers: residual layers of each level.
        groups: of each group norm.
        attention: whether the coarsest level attends.

    Raises:
        ValueError: if diffusers is not installed, for a bad setting, or images that cannot be halved so often.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent_channels: int = 4,
        channels: Sequence[int] = (32, 64, 64),
        layers: int = 1,
        groups: int = 8,
        attention: bool = True,
    ) -> None:
        whole("latent_channels", latent_channels, 1)
        whole("layers", layers, 1)
        super().__init__(shape, latent_shape(shape, latent_channels, channels))
        levels = len(channels)
        self.network: Any = autoencoder_kl(
            {
                "in_channels": self.shape[0],
                "out_channels": self.shape[0],
                "down_block_types": ("DownEncoderBlock2D",) * levels,
                "up_block_types": ("UpDecoderBlock2D",) * levels,
                "block_out_channels": tuple(channels),
                "layers_per_block": layers,
                "latent_channels": latent_channels,
                "norm_num_groups": groups,
                "sample_size": self.shape[-1],
                "scaling_factor": 1.0,
                "mid_block_add_attention": attention,
            }
        )

    def encode(self, x: Tensor) -> Latents:
        """The means of the posteriors."""
        return Latents(self.network.encode(x).latent_dist.mean)

    def decode(self, latents: Latents) -> Tensor:
        """See `Autoencoder.decode`."""
        return self.network.decode(latents.value).sample

    def reconstruct(self, x: Tensor, noise: Tensor) -> Reconstruction:
        """By a draw from the posterior; the regularization is its divergence from the prior, in nats a pixel value."""
        posterior = self.network.encode(x).latent_dist
        decoded = self.decode(Latents(posterior.mean + posterior.std * noise))
        return Reconstruction(decoded, posterior.kl().mean() / x[0].numel())

    def prior(self, noise: Tensor) -> Latents:
        """The noise itself."""
        return Latents(noise)

    @property
    def last_layer(self) -> nn.Parameter:
        """See `Autoencoder.last_layer`."""
        return self.network.decoder.conv_out.weight
