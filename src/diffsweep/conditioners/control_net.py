"""A finished model that is told more, its own weights untouched: a trained copy of its encoder steers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from diffsweep.backbones.controllable import Controllable, Encoder, Hears
from diffsweep.conditioners.conditioned import Conditioned
from diffsweep.conditioners.conditioner import Conditioner
from diffsweep.diffusion.condition import Condition
from diffsweep.mistakes import BadValue


class ControlNet(nn.Module):
    """A frozen network and a copy of its encoder that is told more: (x, logsnr, condition) -> x, as every backbone.

    What the copy's features give through layers that are zero at first is added to those of the frozen network, so
    that before the first step it is the frozen network ("Adding Conditional Control to Text-to-Image Diffusion
    Models", arXiv 2302.05543, section 3.1; for a transformer as in PIXART-delta, arXiv 2401.05252, section 4.2).

    Args:
        frozen: The network of a finished model, with what takes in its conditions, as `unet` and `dit` are, or an
            imported one; it is changed: its weights are trained no more.
        conditioners: What the copy is told, by the names of the entries: what the frozen network is told, and more.

    Raises:
        ValueError: for a network that cannot be steered, or if nothing is told that is new to it.
    """

    def __init__(self, frozen: nn.Module | None, conditioners: Mapping[str, Conditioner]) -> None:
        super().__init__()
        if frozen is None:
            raise BadValue("frozen", None, "must name a finished training, as its folder below fits/ does")
        network = frozen.backbone if isinstance(frozen, Conditioned) else frozen
        if not isinstance(network, Controllable):
            raise ValueError(
                f"backbone=controlnet steers a unet, a dit, or one of diffusers' that was imported, and this is a "
                f"{type(network).__name__}"
            )
        heard = set(network.hears) if isinstance(network, Hears) else set[str]()
        known = set(frozen.conditioners) if isinstance(frozen, Conditioned) else heard
        if not conditioners.keys() - known:
            told = f" beside {' and '.join(sorted(known))}" if known else ""
            raise ValueError(
                f"backbone=controlnet has nothing to tell its frozen model: choose a condition{told}, as condition="
                f"{'[' + ','.join([*sorted(known), 'edges']) + ']' if known else 'edges'}"
            )
        self.frozen = frozen.requires_grad_(False)
        for module in frozen.modules():
            if isinstance(module, nn.Dropout):
                # The frozen network is always the one that is sampled from.
                module.p = 0.0
        new = {name: one for name, one in conditioners.items() if name not in heard}
        encoder = network.encoder_copy()
        features = _HearingFeatures(encoder) if isinstance(encoder, Hears) else _Features(encoder)
        self.control = Conditioned(features, new).requires_grad_(True)
        for name in (known - heard) & conditioners.keys():
            given = cast(Conditioned, frozen).conditioners[name].state_dict()
            try:
                self.control.conditioners[name].load_state_dict(given)
            except RuntimeError as error:
                raise ValueError(
                    f"condition.{name} is not that of the frozen model: leave it as it was there"
                ) from error
        self.silent = network.silent_layers()
        for name in ("inputs", "outputs"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))

    def check_condition(self, condition: Condition | None) -> None:
        """See `ChecksCondition`: every condition was checked when it was built."""

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        """As the frozen network, steered by what is told."""
        features = cast("list[Tensor]", self.control(x, logsnr, condition))
        residuals = [layer(feature) for layer, feature in zip(self.silent, features, strict=True)]
        told = condition if isinstance(self.frozen, (Conditioned, Hears)) else None
        return self.frozen(x, logsnr, told, residuals)


class _Features(nn.Module):
    """An encoder as a network of its own: called as a backbone with doors, it gives its features."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        assert isinstance(encoder, Encoder)
        self.encoder = encoder
        self.doors = encoder.doors

    def forward(self, x: Tensor, logsnr: Tensor, embeddings: object = None) -> list[Tensor]:
        return self.encoder.features(x, logsnr, embeddings)  # type: ignore[operator]


class _HearingFeatures(nn.Module):
    """The same of an encoder that takes in some of a condition itself."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        assert isinstance(encoder, Encoder)
        assert isinstance(encoder, Hears)
        self.encoder = encoder
        self.doors, self.hears = encoder.doors, encoder.hears

    def forward(
        self, x: Tensor, logsnr: Tensor, embeddings: object = None, condition: Condition | None = None
    ) -> list[Tensor]:
        return self.encoder.features(x, logsnr, embeddings, condition)  # type: ignore[operator]
