"""Videos by their frames: how each frame looks, in the features of an image's extractor, and how much frames change.

Of the features f_1 ... f_T of a video's frames, `frames` is the mean, which does not see their order; `differences` is
the root mean square of f_(t+1) - f_t, which is 0 for a picture that stands still. Their Frechet distances are
`fd_frames_SPACE` and `fd_differences_SPACE`: no published number of videos is comparable with them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from diffsweep.evaluation.extractor import Extractor, sha256

# Part of the extractor's identity: to be changed together with what `Frames.forward` computes.
ARCHITECTURE = "mean over frames, root mean square of differences of consecutive frames"


class Frames(nn.Module):
    """An image network, shown every frame of a video.

    Args:
        network: from uint8 (N, C, H, W) to features (N, d), or to outputs by name, `features` among them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`features` and `frames`, which are the same, and `differences`, each (N, d), of uint8 (N, C, T, H, W).

        Raises:
            ValueError: for what is no video of two frames or more, or frames that the network does not take.
        """
        if len(x.shape) != 5 or x.shape[2] < 2:
            raise ValueError(f"frames takes videos uint8 (N, C, T, H, W) with T of 2 or more, not {tuple(x.shape)}")
        count, frames = x.shape[0], x.shape[2]
        given: Tensor | Mapping[str, Tensor] = self.network(x.transpose(1, 2).flatten(0, 1).contiguous())
        each = (given if isinstance(given, Tensor) else given["features"]).float().unflatten(0, (count, frames))
        mean = each.mean(dim=1)
        return {"features": mean, "frames": mean, "differences": each.diff(dim=1).square().mean(dim=1).sqrt()}


def frames(inner: Extractor) -> Extractor:
    """The extractor of videos that looks at each frame with `inner`, an extractor of images."""
    cpu_batch = None if inner.cpu_batch is None else 1
    return Extractor(
        Frames(inner.network),
        inner.space,
        inner.dimension,
        sha256(ARCHITECTURE, inner.digest),
        ("features", "frames", "differences"),
        inner.resize,
        files=inner.files,
        cpu_batch=cpu_batch,
    )
