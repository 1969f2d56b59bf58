"""Networks: `backbone(x, logsnr, condition=None)` -> a tensor of the shape of x.

x is scaled to about unit variance, logsnr is (N,) and may be infinite, condition is None or int64 labels (N,).
"""

from diffsweep.backbones.mlp import MLP
from diffsweep.backbones.unet import UNet

__all__ = ["MLP", "UNet"]
