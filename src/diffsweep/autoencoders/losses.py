"""What an autoencoder is trained for: likeness, small latents, and patches that a discriminator takes for real.

Sources: "Taming Transformers for High-Resolution Image Synthesis" (arXiv 2012.09841, equations 4 to 7) and "High-
Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752, section 3.1 and appendix G).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffsweep.autoencoders.perceptual import PerceptualDistance
from diffsweep.mistakes import at_least, one_of, whole

# The largest weight of the adversarial loss, relative to its own.
_MOST = 1e4


@dataclass(frozen=True, eq=False)
class Losses:
    """Weights of the losses; each is the mean over pixel values.

    Attributes:
        reconstruction: l1 or l2, of the difference between an image and its reconstruction.
        regularization: Weight of what keeps latents small.
        perceptual: Weight of `PerceptualDistance`; 0 for none.
        adversarial: Weight of the discriminator, relative to the other losses; 0 for none.
        adversarial_start: Step from which it counts, and from which the discriminator is trained.

    Raises:
        ValueError: for a bad value, or a perceptual loss whose weights are not installed.
    """

    reconstruction: Literal["l1", "l2"] = "l1"
    regularization: float = 1e-6
    perceptual: float = 0.0
    adversarial: float = 0.0
    adversarial_start: int = 1000

    def __post_init__(self) -> None:
        one_of("reconstruction", self.reconstruction, ("l1", "l2"))
        for name in ("regularization", "perceptual", "adversarial"):
            at_least(name, getattr(self, name))
        whole("adversarial_start", self.adversarial_start, 0)
        if self.perceptual:
            PerceptualDistance.check_installed()

    def likeness(self, x: Tensor, reconstructed: Tensor, perceptual: PerceptualDistance | None) -> Tensor:
        """The loss of a difference between images in [-1, 1], that of their features included."""
        difference = x - reconstructed
        loss = difference.abs().mean() if self.reconstruction == "l1" else difference.square().mean()
        return loss if perceptual is None else loss + self.perceptual * perceptual(x, reconstructed).mean()


def adaptive_weight(likeness: Tensor, adversarial: Tensor, last_layer: nn.Parameter) -> Tensor:
    """How much an adversarial loss must weigh to pull at the last layer as hard as the likeness (2012.09841, eq. 7)."""
    first, second = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (likeness, adversarial)
    )
    return (first / (second + 1e-6)).clamp(0, _MOST).detach()


def hinge(real: Tensor, reconstructed: Tensor) -> Tensor:
    """The discriminator's loss of its answers: real patches above 1, others below -1 (arXiv 1705.02894)."""
    return (torch.relu(1 - real).mean() + torch.relu(1 + reconstructed).mean()) / 2
