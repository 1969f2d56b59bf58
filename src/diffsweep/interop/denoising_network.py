"""A foreign network as a backbone: x is brought onto its own path and scale, its level told in its own way.

Whatever it predicts, the backbone answers with x0, which means the same on every path, so that a sampler may leave the
network's own. With (skip, out) of its target at its own level:

    x0 = skip x + out network(scale x, level input)
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.guidance.distilled import SCALE
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.target import Target
from diffsweep.interop.levels import LevelInput
from diffsweep.mistakes import BadValue, above, one_of, whole


@runtime_checkable
class TextNetwork(Protocol):
    """A network that may attend to a text, then called with its tokens (N, L, width) as a fourth argument.

    Attributes:
        text: Numbers of each of those tokens; None if it attends to none.
    """

    text: int | None


@runtime_checkable
class GuidedNetwork(Protocol):
    """A network that may be told the scale of a guidance that it was distilled from, then called with `guidance` (N,).

    Attributes:
        guidance: Whether it is.
        pack: Side of the patches of data that it sees as one; height and width must be multiples of it.
    """

    guidance: bool
    pack: int


@runtime_checkable
class SteeredNetwork(Protocol):
    """A network whose encoder can be copied, and to whose features residuals are added on the way to its decoder.

    Attributes:
        map_door: Channels of a map that can be added to what its first layer gives, and positions of an example, each
            way, that are one of that map; None for a network that cannot be steered.
    """

    map_door: tuple[int, int] | None

    def features(self, *given: Any, map: Tensor | None = None, **more: Any) -> list[Tensor]:
        """What its encoder gives; arguments as of a call."""
        ...

    def drop_decoder(self) -> None:
        """Leave out the weights that `features` needs not."""
        ...

    def silent_layers(self) -> nn.ModuleList:
        """New layers, one for each of the features and of its shape, whose outputs are zero."""
        ...


# What a network distilled from guidance is told where nobody says: that of diffusers' pipeline.
GUIDANCE = 3.5


class LabelledNetwork(Protocol):
    """What the networks of a format have in common: a module called with a state, a level input and labels.

    Attributes:
        classes: How many labels it is told; 0 for none.
        absent: The label that means "no label"; None if there is none.
        shape: (channels, height, width) of the data it is made for; None where that is not said, an entry None where
            any size will do.
    """

    classes: int
    absent: int | None
    shape: tuple[int | None, ...] | None

    def __call__(self, x: Tensor, level: Tensor, labels: Tensor | None) -> Tensor: ...


class DenoisingNetwork(nn.Module):
    """The backbone of a model that was trained elsewhere: (x of unit variance, logsnr, condition) -> x0.

    Args:
        network: The foreign network.
        target: What it predicts.
        level: How it is told the level.
        schedule: That it was trained on.
        scale: Of its input: path (x as it is on the network's path), unit (of variance alpha^2 + sigma^2 = 1), or data
            (of unit variance for data of root mean square sigma_data, EDM's c_in).
        sigma_data: Root mean square of the data, for scale=data.
        classes: How many labels the data have, 0 for none.
        network_classes: How many labels the network is told, 0 for none; one more than the data have where the last
            means none.
        shape: Of the data.
        text_shape: (tokens, numbers of each) of a text that the network is told; empty for none.

    Raises:
        ValueError: for a shape, a number of labels or a text that the network does not take.
    """

    empty_text: Tensor

    def __init__(
        self,
        network: LabelledNetwork,
        target: Target,
        level: LevelInput,
        schedule: Schedule,
        scale: Literal["path", "unit", "data"] = "path",
        sigma_data: float = 0.5,
        classes: int = 0,
        network_classes: int = 0,
        shape: Sequence[int] = (),
        text_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        one_of("scale", scale, ("path", "unit", "data"))
        above("sigma_data", sigma_data)
        whole("classes", classes, 0)
        if network_classes != network.classes:
            raise BadValue("network_classes", network_classes, f"is not that of the network, {network.classes}")
        absent = network.absent
        if absent is None and classes and classes == network.classes - 1:
            # A table with one row more than labels: the last one stands for none.
            absent = classes
        if network.classes and classes not in (0, network.classes, absent):
            raise ValueError(f"this network is told one of {network.classes} labels, not of {classes}")
        _check_shape(network, tuple(shape))
        width = network.text if isinstance(network, TextNetwork) else None
        if (tuple(text_shape)[1:] or (None,))[0] != width:
            rule = "none" if width is None else f"(tokens, {width})"
            raise BadValue("text_shape", list(text_shape), f"is not that of the text that the network is told: {rule}")
        self.network = network
        self.target = target
        self.level = level
        self.schedule = schedule
        self.scale = scale
        self.sigma_data = sigma_data
        self.classes = classes
        self.absent = absent
        self.told_text = width is not None
        self.reads_guidance_scale = isinstance(network, GuidedNetwork) and network.guidance
        if width is not None:
            # What its language model makes of no words, which comes with the weights.
            self.register_buffer("empty_text", torch.zeros(*text_shape))

    @property
    def hears(self) -> Collection[str]:
        """See `Hears`: the names of what it is told."""
        return [*(["label"] if self.network.classes else []), *(["text"] if self.told_text else [])]

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        condition: Condition | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """x0, of the shape of `x` (N, ...); `logsnr` (N,) may be -inf, `condition` has labels, or is None.

        `residuals` are added to the features of the network, see `Controllable`.
        """
        x, path, given, more = self._arguments(x, logsnr, condition)
        if residuals is not None:
            more["residuals"] = residuals
        predicted = self.network(*given, **more)
        skip, out = self.target.skip_out(path)
        coefficients = Level(torch.as_tensor(skip).expand(len(x)), torch.as_tensor(out).expand(len(x))).like(x)
        return coefficients.alpha * x + coefficients.sigma * predicted.to(path.like(x).alpha.dtype)

    def features(
        self, x: Tensor, logsnr: Tensor, condition: Condition | None = None, map: Tensor | None = None
    ) -> list[Tensor]:
        """What the encoder of its network gives, which must be a `SteeredNetwork`; arguments as of a call.

        `map` is added to what the network's first layer gives.
        """
        assert isinstance(self.network, SteeredNetwork)
        _, _, given, more = self._arguments(x, logsnr, condition)
        return self.network.features(*given, map=map, **more)

    def encoder_copy(self) -> nn.Module:
        """See `Controllable.encoder_copy`."""
        if not isinstance(self.network, SteeredNetwork) or self.network.map_door is None:
            raise ValueError(
                "backbone=controlnet steers UNet2DModel, UNet2DConditionModel and DiTTransformer2DModel of what is "
                "imported, and this network is another"
            )
        copied = copy.deepcopy(self)
        assert isinstance(copied.network, SteeredNetwork)
        copied.network.drop_decoder()
        return ForeignEncoder(copied, Doors(map=self.network.map_door[0], patch=self.network.map_door[1]))

    def silent_layers(self) -> nn.ModuleList:
        """See `Controllable.silent_layers`."""
        assert isinstance(self.network, SteeredNetwork)
        return self.network.silent_layers()

    def _arguments(
        self, x: Tensor, logsnr: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Level, list[Any], dict[str, Any]]:
        """x on the network's path, the level there, and what the network is called with."""
        exact = logsnr.double() if logsnr.device.type != "mps" else logsnr
        path = self.schedule.path(exact)
        size = torch.hypot(path.alpha, path.sigma)
        # x comes with unit variance.
        x = Level(size, size).like(x).alpha * x
        seen = x
        if self.scale == "unit":
            seen = x / Level(size, size).like(x).alpha
        elif self.scale == "data":
            width = torch.hypot(path.alpha * self.sigma_data, path.sigma)
            seen = x / Level(width, width).like(x).alpha
        told = self.level(exact, self.schedule)
        if told.is_floating_point():
            told = told.to(torch.promote_types(x.dtype, torch.float32))
        text = [self._text(condition, x)] if self.told_text else []
        more: dict[str, Any] = {"guidance": self._guidance(condition, x)} if self.reads_guidance_scale else {}
        return x, path, [seen, told, self._labels(condition, x), *text], more

    def check_condition(self, condition: Condition | None) -> None:
        """Raise ValueError unless the network is told just such a condition: labels, or nothing."""
        knows = {"label", "text"} if self.told_text else {"label"}
        others = [name for name in condition or () if name not in knows]
        if others:
            told = "a text" if self.told_text else "labels at most"
            raise ValueError(f"condition={others[0]}: this network was trained elsewhere, and is told {told}")
        if condition is not None and "label" in condition and not self.network.classes:
            raise ValueError("condition=label: this network was trained without labels; leave it out")
        if condition is None and self.network.classes and self.absent is None:
            raise ValueError(
                f"this network must be told one of its {self.network.classes} labels: choose a dataset with as many, "
                "and leave out condition=none"
            )

    def _text(self, condition: Condition | None, x: Tensor) -> Tensor:
        """Tokens (N, L, width): of no words where there is no text."""
        if condition is None or "text" not in condition:
            return self.empty_text.to(x.dtype).expand(len(x), -1, -1)
        entry = condition["text"]
        return torch.where(entry.present[:, None, None], entry.value, self.empty_text).to(x.dtype)

    def _guidance(self, condition: Condition | None, x: Tensor) -> Tensor:
        """The scale (N,) that the network is told."""
        if condition is None or SCALE not in condition:
            return x.new_full((len(x),), GUIDANCE)
        entry = condition[SCALE]
        return entry.value.to(x.dtype).masked_fill(~entry.present, GUIDANCE)

    def _labels(self, condition: Condition | None, x: Tensor) -> Tensor | None:
        if not self.network.classes:
            return None
        if condition is None or "label" not in condition:
            if self.absent is None:
                raise ValueError("this network must be told labels: leave out condition=none")
            return torch.full((len(x),), self.absent, device=x.device)
        label = condition["label"]
        if self.absent is not None:
            return label.value.masked_fill(~label.present, self.absent)
        if not bool(label.present.all()):
            raise ValueError("this network knows no answer without a label, which this guidance compares with")
        return label.value


class ForeignEncoder(nn.Module):
    """The copy of the encoder of a foreign network: an `Encoder` that hears what the network does.

    Args:
        network: The copy, without its decoder.
        doors: For what is new.
    """

    def __init__(self, network: DenoisingNetwork, doors: Doors) -> None:
        super().__init__()
        self.network, self.doors = network, doors
        self.hears = network.hears

    def features(
        self,
        x: Tensor,
        logsnr: Tensor,
        embeddings: Embeddings | None = None,
        condition: Condition | None = None,
    ) -> list[Tensor]:
        """See `Encoder.features`."""
        return self.network.features(x, logsnr, condition, None if embeddings is None else embeddings.map)


def _check_shape(network: LabelledNetwork, shape: tuple[int, ...]) -> None:
    wanted = network.shape
    pack = network.pack if isinstance(network, GuidedNetwork) else 1
    if any(side % pack for side in shape[1:]):
        raise ValueError(
            f"this network sees patches of {pack} x {pack}, and the data are {' x '.join(map(str, shape))}: choose "
            f"another dataset.size, so that height and width are multiples of {pack}"
        )
    if wanted is None or not shape:
        return
    if len(wanted) != len(shape) or any(want not in (None, side) for want, side in zip(wanted, shape, strict=True)):
        words = " x ".join("any" if side is None else str(side) for side in wanted)
        raise ValueError(
            f"this network takes data of {words}, and the dataset's are {' x '.join(map(str, shape))}: choose the "
            "dataset that it was trained on, or dataset=images dataset.path=... dataset.size=... of the same shape"
        )
