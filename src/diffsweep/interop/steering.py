"""How networks of diffusers are steered: where their encoders give features, and residuals are added to them.

Their own code goes on as it is; what its parts give is seen, and changed, by hooks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, final

from torch import Tensor, nn


class _EncodedError(Exception):
    """The encoder is done, and what comes after it is not wanted."""


class Steering(ABC):
    """The encoder of a kind of network: an entrance, and stages that give features one after another."""

    @abstractmethod
    def map_door(self, model: nn.Module) -> tuple[int, int] | None:
        """Channels of a map for the entrance, and positions of an example, each way, that are one of it; or None."""

    @abstractmethod
    def entrance(self, model: nn.Module) -> nn.Module:
        """The first layer."""

    @abstractmethod
    def stages(self, model: nn.Module) -> Sequence[nn.Module]:
        """Parts that give features, in the order in which they are called."""

    @abstractmethod
    def features_of(self, output: Any) -> tuple[Tensor, ...]:
        """The features that a stage gives."""

    @abstractmethod
    def with_features(self, output: Any, features: tuple[Tensor, ...]) -> Any:
        """What a stage gives, with other features."""

    @abstractmethod
    def with_map(self, output: Tensor, map: Tensor) -> Tensor:
        """What the entrance gives, and a map (N, C, H, W)."""

    @abstractmethod
    def drop_decoder(self, model: nn.Module) -> None:
        """Remove what comes after the last stage."""

    @abstractmethod
    def silent_layers(self, model: nn.Module) -> nn.ModuleList:
        """One for each of the features, and of its shape, whose outputs are zero."""

    @contextmanager
    def added(self, model: nn.Module, residuals: Sequence[Tensor]) -> Iterator[None]:
        """Inside of the block residuals are added to the features of one call."""
        left = list(residuals)

        def add(module: nn.Module, given: Any, output: Any) -> Any:
            return self.with_features(output, tuple(one + left.pop(0) for one in self.features_of(output)))

        with ExitStack() as stack:
            for stage in self.stages(model):
                stack.callback(stage.register_forward_hook(add).remove)
            yield
        assert not left, "there are more residuals than features"

    @contextmanager
    def collected(self, model: nn.Module, map: Tensor | None) -> Iterator[list[Tensor]]:
        """The features of one call inside of the block, which ends with the last of them."""
        found: list[Tensor] = []
        stages = self.stages(model)

        def enter(module: nn.Module, given: Any, output: Any) -> Any:
            return output if map is None else self.with_map(output, map)

        def collect(last: bool, module: nn.Module, given: Any, output: Any) -> None:
            found.extend(self.features_of(output))
            if last:
                raise _EncodedError

        with ExitStack() as stack:
            stack.callback(self.entrance(model).register_forward_hook(enter).remove)
            for stage in stages:
                hook = partial(collect, stage is stages[-1])
                stack.callback(stage.register_forward_hook(hook).remove)
            try:
                yield found
            except _EncodedError:
                return


def _silent(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


@final
class UNetSteering(Steering):
    """UNet2DModel and UNet2DConditionModel: what skips to the decoder from each block, and what the middle gives
    ("Adding Conditional Control to Text-to-Image Diffusion Models", arXiv 2302.05543, section 3.1).

    What the first layer alone lets skip is left as it is.
    """

    def map_door(self, model: nn.Module) -> tuple[int, int] | None:
        """See `Steering`."""
        entrance = self.entrance(model)
        return (entrance.out_channels, 1) if isinstance(entrance, nn.Conv2d) else None

    def entrance(self, model: nn.Module) -> nn.Module:
        """See `Steering`."""
        return model.conv_in  # type: ignore[return-value]

    def stages(self, model: Any) -> Sequence[nn.Module]:
        """See `Steering`."""
        return [*model.down_blocks, *([] if model.mid_block is None else [model.mid_block])]

    def features_of(self, output: Any) -> tuple[Tensor, ...]:
        """See `Steering`: a block on the way down gives (what goes on, what skips)."""
        return tuple(output[1]) if isinstance(output, tuple) else (output,)

    def with_features(self, output: Any, features: tuple[Tensor, ...]) -> Any:
        """See `Steering`."""
        return (output[0], features, *output[2:]) if isinstance(output, tuple) else features[0]

    def with_map(self, output: Tensor, map: Tensor) -> Tensor:
        """See `Steering`."""
        return output + map

    def drop_decoder(self, model: nn.Module) -> None:
        """See `Steering`."""
        del model.up_blocks, model.conv_norm_out, model.conv_out

    def silent_layers(self, model: Any) -> nn.ModuleList:
        """See `Steering`."""
        channels: list[int] = []
        for block, width in zip(model.down_blocks, model.config.block_out_channels, strict=True):
            channels += [width] * (len(block.resnets) + len(block.downsamplers or ()))
        if model.mid_block is not None:
            channels.append(model.config.block_out_channels[-1])
        return nn.ModuleList(_silent(nn.Conv2d(width, width, 1)) for width in channels)


@final
class TransformerSteering(Steering):
    """DiTTransformer2DModel: what the first half of its blocks give (PIXART-delta, arXiv 2401.05252, section 4.2)."""

    def map_door(self, model: Any) -> tuple[int, int] | None:
        """See `Steering`."""
        return model.inner_dim, int(model.config.patch_size)

    def entrance(self, model: nn.Module) -> nn.Module:
        """See `Steering`."""
        return model.pos_embed  # type: ignore[return-value]

    def stages(self, model: Any) -> Sequence[nn.Module]:
        """See `Steering`."""
        return list(model.transformer_blocks)[: (model.config.num_layers + 1) // 2]

    def features_of(self, output: Any) -> tuple[Tensor, ...]:
        """See `Steering`."""
        return (output,)

    def with_features(self, output: Any, features: tuple[Tensor, ...]) -> Any:
        """See `Steering`."""
        return features[0]

    def with_map(self, output: Tensor, map: Tensor) -> Tensor:
        """See `Steering`: a position of the map is a token."""
        return output + map.flatten(2).transpose(1, 2)

    def drop_decoder(self, model: Any) -> None:
        """See `Steering`."""
        model.transformer_blocks = model.transformer_blocks[: len(self.stages(model))]
        del model.norm_out, model.proj_out_1, model.proj_out_2

    def silent_layers(self, model: Any) -> nn.ModuleList:
        """See `Steering`."""
        return nn.ModuleList(_silent(nn.Linear(model.inner_dim, model.inner_dim)) for _ in self.stages(model))
