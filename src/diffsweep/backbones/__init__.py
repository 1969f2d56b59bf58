"""Networks: `backbone(x, logsnr, embeddings=None)` -> a tensor of the shape of the data.

x is scaled to about unit variance, logsnr is (N,) and may be infinite, embeddings are what conditions bring to the
network's doors (see `doors`). x and the result have `inputs` and `outputs` times the channels of the data, once unless
more is asked for.
"""

from diffsweep.backbones.dit import DiT
from diffsweep.backbones.edm2 import EDM2
from diffsweep.backbones.mlp import MLP
from diffsweep.backbones.unet import UNet

__all__ = ["EDM2", "MLP", "DiT", "UNet"]
