"""One shape for every feature extractor: uint8 images (or points) in, float32 (N, d) out, and a name for the metric.

A distance means nothing without the features that it was measured in, so an extractor carries the name under which its
distance may be reported and a digest of everything that shapes a feature.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network and what its Frechet distance is called.

    Attributes:
        network: maps a batch, uint8 (N, C, H, W) in 0..255 or float points (N, D), to features (N, dimension).
        metric: name of the Frechet distance in these features: `fid` for the original Inception only.
        dimension: number of features.
        digest: SHA-256 (hex) of architecture, weights, resize: equal digests mean equal features.
        device: where the network lies and runs.
    """

    network: nn.Module
    metric: str
    dimension: int
    digest: str
    device: str = "cpu"

    def to(self, device: torch.device | str) -> "Extractor":
        """The same extractor on another device."""
        return replace(self, network=self.network.to(device), device=str(device))

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Features of one batch, float32 (N, dimension), on the extractor's device.

        Raises:
            ValueError: when `x` is neither uint8 (N, C, H, W) nor float (N, D), or does not fit the network.
        """
        images = x.dtype == torch.uint8 and x.ndim == 4
        if not images and not (x.is_floating_point() and x.ndim == 2):
            raise ValueError(f"{self.metric} takes uint8 (N, C, H, W) or float (N, D), not {x.dtype} {tuple(x.shape)}")
        # Float32 whatever the training runs in: autocast and TF32 convolutions move the distance between machines.
        with (
            torch.autocast(torch.device(self.device).type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            features = self.network.eval()(x.to(self.device)).to(torch.float32)
        if features.shape != (len(x), self.dimension):
            raise ValueError(f"{self.metric} gave features {tuple(features.shape)}, not {(len(x), self.dimension)}")
        return features

    def batches(self, x: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Features of `x` in its order, at most `batch_size` at a time: what `accumulate` takes.

        Raises:
            ValueError: when `batch_size` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"evaluation.batch_size must be at least 1, not {batch_size}")
        return map(self, x.split(batch_size))


def sha256(*parts: str | bytes) -> str:
    """SHA-256 (hex) of `parts`, each preceded by its length so that no two lists of parts collide."""
    sha = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        sha.update(f"{len(content)}:".encode())
        sha.update(content)
    return sha.hexdigest()
