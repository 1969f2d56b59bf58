"""An autoencoder whose latents are drawn from a Gaussian near the standard normal one: AutoencoderKL of diffusers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffsweep.autoencoders.autoencoder import Autoencoder, Latents, Reconstruction
from diffsweep.autoencoders.levels import Levels


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
        levels = Levels(latent_channels, channels, layers, groups, attention)
        super().__init__(shape, levels.latent_shape(shape))
        self.network = levels.network("AutoencoderKL", self.shape)

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
