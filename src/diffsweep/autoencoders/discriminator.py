"""Tells real patches of images from reconstructed ones: an autoencoder that is trained against it keeps textures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from diffsweep.mistakes import whole


class PatchDiscriminator(nn.Module):
    """One number for each patch of an image, high for real ones (arXiv 1611.07004, section 3.2.2).

    Its norms know one image only, so that an answer does not depend on the other images of a batch.

    Args:
        shape: (channels, height, width) of images.
        width: channels of the first layer; each later one has twice as many, at most 8 times.
        layers: that halve the image; a patch is about 2^(layers + 2) pixels wide.

    Raises:
        ValueError: for a bad value.
    """

    def __init__(self, shape: Sequence[int], width: int = 32, layers: int = 2) -> None:
        super().__init__()
        whole("width", width, 1)
        whole("layers", layers, 1)
        parts: list[nn.Module] = [nn.Conv2d(int(shape[0]), width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        before = width
        for layer in range(1, layers + 1):
            after = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            parts += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(1, after),
                nn.LeakyReLU(0.2),
            ]
            before = after
        self.network = nn.Sequential(*parts, nn.Conv2d(before, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, *shape) -> (N, 1, H, W)."""
        return self.network(x)
