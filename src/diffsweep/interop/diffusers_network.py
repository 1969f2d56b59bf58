"""Networks of the package diffusers, called with (x, level input, labels, text); diffusers is imported when needed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.interop.configuration import plain, refuse_unknown
from diffsweep.interop.steering import Steering, TransformerSteering, UNetSteering
from diffsweep.mistakes import alternatives, did_you_mean, spell

# Keys of every config.json that say nothing about the network.
_ABOUT = ("_class_name", "_diffusers_version", "_name_or_path", "_use_default_values", "_commit_hash")

# Flux's network sees patches of 2 x 2 latents.
_PACK = 2

# A layer has at least one tensor: more layers than this are no network but an attack on the memory.
_MOST_LAYERS = 512


def require() -> Any:
    """The package diffusers. Raises ValueError, saying how to install it."""
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            f"models in the format of diffusers need that package ({error}): pip install 'diffsweep[interop]'"
        ) from error
    return diffusers


def _unet(config: Mapping[str, Any]) -> tuple[int, int | None]:
    if config.get("class_embed_type") not in (None,):
        raise ValueError(f"class_embed_type={config['class_embed_type']} takes no labels that are numbers")
    return config.get("num_class_embeds") or 0, None


class TextInputs(NamedTuple):
    """What a network is told of texts: tokens (N, L, width), each whole text (N, width), and sizes of images (N, 6).

    With them comes the scale of a guidance (N,). All but the tokens are None for a network that is not told them. Sizes
    are in pixels: of the original, of what was cut off at the top and left, of the image that is wanted.
    """

    tokens: Tensor
    whole: Tensor | None = None
    sizes: Tensor | None = None
    guidance: Tensor | None = None


def _conditional_unet(config: Mapping[str, Any]) -> tuple[int, int | None]:
    if config.get("addition_embed_type") not in (None, "text_time"):
        raise ValueError(f"addition_embed_type={config['addition_embed_type']} needs more than x, a level and a text")
    for key in ("encoder_hid_dim_type", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise ValueError(f"{key}={config[key]} needs more than x, a level and a text")
    return _unet(config)


def _sized_text(config: Mapping[str, Any]) -> int | None:
    """Numbers of the whole text, beside which six sizes are told."""
    if config.get("addition_embed_type") is None:
        return None
    whole, sizes = config.get("projection_class_embeddings_input_dim"), config.get("addition_time_embed_dim")
    if not isinstance(whole, int) or not isinstance(sizes, int) or whole <= 6 * sizes:
        raise ValueError(
            f"projection_class_embeddings_input_dim={spell(whole)} is no text and six sizes of {spell(sizes)} numbers"
        )
    return whole - 6 * sizes


def _joint_text(config: Mapping[str, Any]) -> int | None:
    return int(config.get("joint_attention_dim", 4096))


def _joint_whole(config: Mapping[str, Any]) -> int | None:
    return int(config.get("pooled_projection_dim", 2048))


def _packed_text(config: Mapping[str, Any]) -> int | None:
    size, channels = config.get("patch_size", 1), config.get("in_channels", 64)
    if size != 1 or not isinstance(channels, int) or channels % _PACK**2:
        raise ValueError(f"patch_size={spell(size)}, in_channels={spell(channels)} is no network of packed latents")
    if config.get("out_channels") not in (None, channels):
        raise ValueError(f"out_channels={spell(config['out_channels'])} is not in_channels={channels}")
    return _joint_text(config)


def _packed_whole(config: Mapping[str, Any]) -> int | None:
    return int(config.get("pooled_projection_dim", 768))


def _no_guidance(config: Mapping[str, Any]) -> bool:
    return False


def _embedded_guidance(config: Mapping[str, Any]) -> bool:
    return bool(config.get("guidance_embeds"))


def _no_labels(config: Mapping[str, Any]) -> tuple[int, int | None]:
    return 0, None


def _no_text(config: Mapping[str, Any]) -> int | None:
    return None


def _attended_text(config: Mapping[str, Any]) -> int | None:
    # What is not said of blocks is as in Stable Diffusion: they attend. None is no block.
    named = [config.get(key, "CrossAttn") for key in ("down_block_types", "up_block_types", "mid_block_type")]
    kinds = [word for words in named for word in (words if isinstance(words, (list, tuple)) else [words])]
    if not any("CrossAttn" in str(kind) for kind in kinds):
        return None
    width = config.get("cross_attention_dim", 1280)
    if not isinstance(width, int):
        raise ValueError(f"cross_attention_dim={spell(width)} is not one number: a network of one text has one")
    return width


def _dit(config: Mapping[str, Any]) -> tuple[int, int | None]:
    # Its table has one row more than labels, which stands for none.
    classes = config.get("num_embeds_ada_norm") or 0
    return classes, classes or None


def _pixart(config: Mapping[str, Any]) -> tuple[int, int | None]:
    for key in ("caption_channels", "cross_attention_dim"):
        if config.get(key) is not None:
            raise ValueError(f"{key}={config[key]} needs a text beside x: only models without text are read")
    if config.get("use_additional_conditions"):
        raise ValueError("use_additional_conditions needs more than x and a level")
    return 0, None


def _call_unet(model: nn.Module, x: Tensor, level: Tensor, labels: Tensor | None, text: TextInputs | None) -> Tensor:
    return model(x, level, class_labels=labels, return_dict=False)[0]


def _call_conditional(
    model: nn.Module, x: Tensor, level: Tensor, labels: Tensor | None, text: TextInputs | None
) -> Tensor:
    tokens = None if text is None else text.tokens
    more: dict[str, Any] = {}
    if text is not None and text.whole is not None:
        more = {"added_cond_kwargs": {"text_embeds": text.whole, "time_ids": text.sizes}}
    return model(x, level, encoder_hidden_states=tokens, class_labels=labels, return_dict=False, **more)[0]


def _call_joint(model: nn.Module, x: Tensor, level: Tensor, labels: Tensor | None, text: TextInputs | None) -> Tensor:
    assert text is not None
    given = {"encoder_hidden_states": text.tokens, "pooled_projections": text.whole}
    return model(x, timestep=level, **given, return_dict=False)[0]


def _call_packed(model: nn.Module, x: Tensor, level: Tensor, labels: Tensor | None, text: TextInputs | None) -> Tensor:
    assert text is not None
    rows, columns = (side // _PACK for side in x.shape[2:])
    places = torch.zeros(rows, columns, 3, device=x.device, dtype=x.dtype)
    places[..., 1] += torch.arange(rows, device=x.device)[:, None]
    places[..., 2] += torch.arange(columns, device=x.device)
    y = model(
        F.pixel_unshuffle(x, _PACK).flatten(2).transpose(1, 2),
        timestep=level / 1000,
        guidance=text.guidance,
        pooled_projections=text.whole,
        encoder_hidden_states=text.tokens,
        txt_ids=places.new_zeros(text.tokens.shape[1], 3),
        img_ids=places.flatten(0, 1),
        return_dict=False,
    )[0]
    return F.pixel_shuffle(y.transpose(1, 2).unflatten(2, (rows, columns)), _PACK)


def _call_dit(model: nn.Module, x: Tensor, level: Tensor, labels: Tensor | None, text: TextInputs | None) -> Tensor:
    return model(x, timestep=level, class_labels=labels, return_dict=False)[0]


def _call_pixart(model: nn.Module, x: Tensor, level: Tensor, labels: Tensor | None, text: TextInputs | None) -> Tensor:
    conditions = {"resolution": None, "aspect_ratio": None}
    return model(x, timestep=level, added_cond_kwargs=conditions, return_dict=False)[0]


@dataclass(frozen=True)
class _Kind:
    """How a class of diffusers is used.

    Attributes:
        labels: from its config, (classes, label that means none); raises ValueError for one that cannot be used.
        call: (model, x, level, labels, tokens of a text) -> its output.
        fixed_size: whether it takes data of one size only.
        text: from its config, numbers of each token of the text that it attends to; None if it attends to none.
        whole: likewise, numbers of the text as a whole.
        pipeline: how its text is read, as of condition.text.pipeline; None for what follows from the rest.
        guidance: from its config, whether it is told the scale of a guidance that it was distilled from.
        pack: side of the patches of latents that are the channels of its input.
        steering: how its encoder is copied and steers it; None if it cannot be.
        patched: key of its config for the side of the patches that it makes of that; None if it makes none.
    """

    labels: Callable[[Mapping[str, Any]], tuple[int, int | None]]
    call: Callable[[nn.Module, Tensor, Tensor, Tensor | None, TextInputs | None], Tensor]
    fixed_size: bool
    text: Callable[[Mapping[str, Any]], int | None] = _no_text
    whole: Callable[[Mapping[str, Any]], int | None] = _no_text
    pipeline: str | None = None
    guidance: Callable[[Mapping[str, Any]], bool] = _no_guidance
    pack: int = 1
    steering: Steering | None = None
    patched: str | None = None


_KINDS = {
    "UNet2DModel": _Kind(_unet, _call_unet, False, steering=UNetSteering()),
    "UNet2DConditionModel": _Kind(
        _conditional_unet, _call_conditional, False, _attended_text, _sized_text, steering=UNetSteering()
    ),
    "DiTTransformer2DModel": _Kind(_dit, _call_dit, True, steering=TransformerSteering()),
    "PixArtTransformer2DModel": _Kind(_pixart, _call_pixart, True),
    "SD3Transformer2DModel": _Kind(
        _no_labels, _call_joint, False, _joint_text, _joint_whole, "stable_diffusion_3", patched="patch_size"
    ),
    "FluxTransformer2DModel": _Kind(
        _no_labels, _call_packed, False, _packed_text, _packed_whole, "flux", _embedded_guidance, _PACK
    ),
}


class DiffusersNetwork(nn.Module):
    """A network of diffusers, with weights at random until some are loaded.

    Args:
        name: Of its class, one of a list.
        config: The arguments of its constructor.
        pixels: Of an image, each way, that become one position of `x`: for networks that are told its size.

    Raises:
        ValueError: for another class, a key that it does not take, a network that needs a text.
    """

    def __init__(self, name: str, config: Mapping[str, Any], pixels: int = 1) -> None:
        super().__init__()
        kind, arguments = _known(name, config)
        self.classes, self.absent = kind.labels(arguments)
        self.text, self.whole, self.pixels = kind.text(arguments), kind.whole(arguments), pixels
        size = arguments.get("sample_size")
        sides: Sequence[int | None] = (None, None)
        if kind.fixed_size:
            sides = (size, size) if isinstance(size, int) else (None, None)
        self.guidance, self.pack = kind.guidance(arguments), kind.pack
        channels = arguments.get("in_channels")
        self.shape = (channels // self.pack**2, *sides) if isinstance(channels, int) else None
        self._call, self._steering = kind.call, kind.steering
        with _quiet():
            try:
                self.model: nn.Module = getattr(require(), name)(**arguments)
            except (AssertionError, AttributeError, ArithmeticError, LookupError, NotImplementedError) as error:
                raise ValueError(f"{name} cannot be built of its config.json: {_line(error)}") from error
            except (RuntimeError, TypeError, ValueError) as error:
                raise ValueError(f"{name} cannot be built of its config.json: {_line(error)}") from error
        for module in self.model.modules():
            if hasattr(module, "dropout_prob"):
                # Which labels are left out in a training is said by its condition.
                module.dropout_prob = 0.0  # type: ignore[assignment]
        self.map_door = None if self._steering is None else self._steering.map_door(self.model)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        labels: Tensor | None = None,
        text: Tensor | None = None,
        guidance: Tensor | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The network's own output, of `x`'s shape; a learned variance, its second half, is left out.

        `residuals` are added to its `features`.
        """
        if residuals is not None:
            assert self._steering is not None
            with self._steering.added(self.model, residuals):
                return self.forward(x, level, labels, text, guidance)
        y = self._call(self.model, x, level, labels, None if text is None else self._text_inputs(text, x, guidance))
        return y[:, : x.shape[1]]

    def features(self, *given: Any, map: Tensor | None = None, **more: Any) -> list[Tensor]:
        """See `SteeredNetwork.features`."""
        assert self._steering is not None
        with self._steering.collected(self.model, map) as found:
            self.forward(*given, **more)
        return found

    def drop_decoder(self) -> None:
        """See `SteeredNetwork.drop_decoder`."""
        assert self._steering is not None
        self._steering.drop_decoder(self.model)

    def silent_layers(self) -> nn.ModuleList:
        """See `SteeredNetwork.silent_layers`."""
        assert self._steering is not None
        return self._steering.silent_layers(self.model)

    def _text_inputs(self, text: Tensor, x: Tensor, guidance: Tensor | None) -> TextInputs:
        """Of rows (N, L, width), whose last one is the whole text if the network is told that."""
        if self.whole is None:
            return TextInputs(text, guidance=guidance)
        height, width = (side * self.pixels for side in x.shape[2:])
        sizes = text.new_tensor([height, width, 0, 0, height, width]).expand(len(x), -1)
        return TextInputs(text[:, :-1], text[:, -1, : self.whole], sizes, guidance)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _known(name: str, config: Mapping[str, Any]) -> tuple[_Kind, dict[str, Any]]:
    if name not in _KINDS:
        near = did_you_mean(name, _KINDS) or f": networks that are read are {alternatives(_KINDS)}"
        raise ValueError(f"the network {spell(name)} cannot be read{near}")
    arguments = {key: plain(value, key) for key, value in config.items() if key not in _ABOUT}
    taken = inspect.signature(getattr(require(), name).__init__).parameters
    refuse_unknown(arguments, [key for key in taken if key != "self"], f"the config.json of {name}")
    for key, value in arguments.items():
        counts = value if isinstance(value, list) else [value]
        if "layers" in key and any(isinstance(count, int) and count > _MOST_LAYERS for count in counts):
            raise ValueError(f"{key}={spell(value)} is more than {_MOST_LAYERS} layers")
        if isinstance(value, list) and len(value) > _MOST_LAYERS:
            raise ValueError(f"{key} has {len(value)} entries, more than {_MOST_LAYERS}")
    return _KINDS[name], arguments


def shapes(name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of such a network, by name, without making one. Raises ValueError as the class does."""
    with torch.device("meta"):
        network = DiffusersNetwork(name, config)
    return {key: tuple(value.shape) for key, value in network.model.state_dict().items()}


def labels(name: str, config: Mapping[str, Any]) -> int:
    """How many labels such a network is told. Raises ValueError as the class does."""
    kind, arguments = _known(name, config)
    return kind.labels(arguments)[0]


def text_width(name: str, config: Mapping[str, Any]) -> int | None:
    """Numbers of each token of the text that such a network attends to; None for none. Raises ValueError likewise."""
    kind, arguments = _known(name, config)
    return kind.text(arguments)


def pipeline_of(name: str, config: Mapping[str, Any]) -> str:
    """How the text of such a network is read, as of condition.text.pipeline. Raises ValueError likewise."""
    kind, arguments = _known(name, config)
    if kind.pipeline is not None:
        return kind.pipeline
    return "stable_diffusion" if kind.whole(arguments) is None else "stable_diffusion_xl"


def patch_of(name: str, config: Mapping[str, Any]) -> int | None:
    """Side of what such a network makes a token of; None if it makes none. Raises ValueError likewise."""
    kind, arguments = _known(name, config)
    if kind.patched is None:
        return kind.pack if kind.pack > 1 else None
    side = arguments.get(kind.patched, 2)
    return side if isinstance(side, int) and side > 0 else None


@contextmanager
def _quiet() -> Any:
    """Inside of the block diffusers says nothing: what is wrong is said once, by us."""
    logger = logging.getLogger("diffusers")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
