"""How different images look: the distance of their features in a network that people's judgements were fitted to.

Source: "Shift-tolerant Perceptual Similarity Metric" (arXiv 2207.13686), the network AlexNet of it, with the weights of
the package stlpips-pytorch (BSD-2), of which no code is imported.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

_MISSING = "needs the weights of a package: pip install 'diffsweep[perceptual]'"
_FILE = Path("weights", "vST0.0", "alex_shift_tolerant.pth")
# sha256 of that file.
_DIGEST = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
# Smaller images are enlarged to this: five convolutions leave nothing of them else.
_LEAST = 64


def perceptual_installed() -> bool:
    """Whether the weights are there."""
    return find_spec("stlpips_pytorch") is not None


class PerceptualDistance:
    """The distance of images, >= 0: about 0.05 for noise that is just seen, 0.5 for images that have little in common.

    Not a module: nothing of it is trained, averaged or saved with what is.

    Raises:
        ValueError: if the weights are not installed, or are others than those that are known.
    """

    def __init__(self) -> None:
        state = _weights()
        self._shift, self._scale = state["scaling_layer.shift"], state["scaling_layer.scale"]
        self._net = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
        self._heads = [state[f"lin{stage}.model.1.weight"] for stage in range(5)]

    @staticmethod
    def check_installed() -> None:
        """Raise ValueError, naming what to install, unless the weights are there."""
        if not perceptual_installed():
            raise ValueError(f"a perceptual loss {_MISSING}; or leave it out, as autoencoder.losses.perceptual=0")

    def to(self, device: torch.device) -> PerceptualDistance:
        """Move the weights to a device; returns itself."""
        self._shift, self._scale = self._shift.to(device), self._scale.to(device)
        self._net = {name: value.to(device) for name, value in self._net.items()}
        self._heads = [head.to(device) for head in self._heads]
        return self

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Of images (N, C, H, W) in [-1, 1] with 1, 3 or 4 channels, of which the first three count: (N,)."""
        total = torch.zeros(len(first), device=first.device)
        for one, other, head in zip(self._features(first), self._features(second), self._heads, strict=True):
            difference = (functional.normalize(one, dim=1) - functional.normalize(other, dim=1)).square()
            total = total + functional.conv2d(difference, head).mean(dim=(1, 2, 3))
        return total

    def _features(self, x: Tensor) -> list[Tensor]:
        x = x[:, :3].float()
        x = x.expand(-1, 3, -1, -1)
        if min(x.shape[-2:]) < _LEAST:
            factor = -(-_LEAST // min(x.shape[-2:]))
            x = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        x = (x - self._shift) / self._scale
        # The first convolution is blurred after it, all others before.
        x = functional.relu(self._blurred(self._convolved(x, "slice1.0", 2), "slice1.1"))
        found = [x]
        for blur, name, padding in (("slice2.4", "slice2.5", 2), ("slice3.8", "slice3.9", 1)):
            x = self._blurred(functional.max_pool2d(x, 3, stride=1), blur)
            x = functional.relu(self._convolved(x, name, padding))
            found.append(x)
        for name in ("slice4.11", "slice5.13"):
            x = functional.relu(self._convolved(x, name, 1))
            found.append(x)
        return found

    def _convolved(self, x: Tensor, name: str, padding: int) -> Tensor:
        return functional.conv2d(x, self._net[f"{name}.weight"], self._net[f"{name}.bias"], padding=padding)

    def _blurred(self, x: Tensor, name: str) -> Tensor:
        """Halved without aliasing (arXiv 1904.11486)."""
        padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, self._net[f"{name}.filt"], stride=2, groups=x.shape[1])


def _weights() -> dict[str, Tensor]:
    spec = find_spec("stlpips_pytorch")
    if spec is None or spec.origin is None:
        raise ValueError(f"a perceptual distance {_MISSING}")
    path = Path(spec.origin).parent / _FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != _DIGEST:
        raise ValueError(f"{path} has other weights than those of stlpips-pytorch 0.0.2: install that version")
    return torch.load(path, map_location="cpu", weights_only=True)
