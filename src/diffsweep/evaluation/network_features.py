"""Features of any image network: of torchvision or timm by its name, or a class of the user's own, from given weights.

What a network sees is said in full by size, mean and std, and is part of the digest, as is the content of its weights.
Nothing is ever downloaded. The number is named for the space that the user names, as `fd_resnet50`; it is a FID in the
features of the original Inception only.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.evaluation.efficientnet import described
from diffsweep.evaluation.extractor import CPU_BATCH, Extractor
from diffsweep.evaluation.extractor import sha256 as digest_of
from diffsweep.evaluation.network_weights import Weights, load_into
from diffsweep.evaluation.opacity import over_white
from diffsweep.mistakes import BadValue, did_you_mean, one_line, one_of, whole

# Of ImageNet's pictures in 0..1, which most networks were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bilinear", "bicubic")

Outputs = Tensor | dict[str, Tensor]


class Preprocessed(nn.Module):
    """A network that is shown pictures as it wants them: as floats of a mean and deviation, of a size.

    Args:
        body: gives features (N, d) of float pictures (N, C, size, size), or several outputs by name.
        size: to which pictures are brought, antialiased, in pixels; None leaves them.
        mean: of pictures in 0..1, by channel: as many as the network wants, 1 or 3.
        std: likewise.
        interpolation: bilinear or bicubic.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, body: nn.Module, size: int | None, mean: Sequence[float], std: Sequence[float], interpolation: str
    ) -> None:
        super().__init__()
        if size is not None:
            whole("size", size, 1)
        if len(mean) not in (1, 3):
            raise BadValue("mean", list(mean), "must have 1 or 3 numbers, one for each channel")
        if len(std) != len(mean) or min(std) <= 0:
            raise BadValue("std", list(std), f"must have {len(mean)} numbers above 0, as mean has")
        self.body, self.size = body.requires_grad_(False), size
        self.mode = one_of("interpolation", interpolation, INTERPOLATIONS)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor([float(value) for value in values]).view(1, -1, 1, 1), False)

    def forward(self, x: Tensor) -> Outputs:
        """Outputs of uint8 (N, 1 or 3, H, W); grey pictures are shown to a network of colours as equal channels.

        Raises:
            ValueError: for another dtype or shape.
        """
        channels, x = self.mean.shape[1], over_white(x)
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, channels):
            raise ValueError(f"this extractor takes uint8 (N, {channels}, H, W), not {x.dtype} {tuple(x.shape)}")
        pixels = x.expand(-1, channels, -1, -1).float()
        if self.size is not None and pixels.shape[2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode=self.mode, align_corners=False, antialias=True)
        return self.body((pixels.clamp(0, 255) / 255 - self.mean) / self.std)

    @property
    def description(self) -> str:
        """All of it in words, for the digest."""
        values = [[round(float(value), 9) for value in part.flatten()] for part in (self.mean, self.std)]
        return f"{self.size} {self.mode} {values}"


class BeforeLastLinear(nn.Module):
    """A classifier whose features are what its last linear layer is given.

    Args:
        network: gives logits (N, classes).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise ValueError("it has no linear layer, whose inputs could be its features")
        self.last = layers[-1]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`features` (N, d) and `logits` (N, classes)."""
        seen: list[Tensor] = []
        hook = self.last.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
        try:
            logits = self.network(x)
        finally:
            hook.remove()
        return {"features": seen[-1], "logits": logits}


class PooledFeatures(nn.Module):
    """A network of timm whose features are what its classifier is given, or its output if it has none."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, d)."""
        return self.network.forward_head(self.network.forward_features(x), pre_logits=True)


def torchvision_network(
    model: str,
    weights: str | None,
    sha256: str | None,
    space: str | None = None,
    size: int | None = 224,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    interpolation: str = "bilinear",
) -> Extractor:
    """The extractor with what the last linear layer of a torchvision classifier is given, and its logits.

    Args:
        model: torchvision's name of it, as resnet50.
        weights: path of its weights: safetensors, or a .pth that holds nothing but tensors.
        sha256: of that file (hex); the path is no part of a result's signature, so this must be.
        space: name of the features; None for that of the model.
        size: see `Preprocessed`.
        mean: see `Preprocessed`.
        std: see `Preprocessed`.
        interpolation: see `Preprocessed`.

    Raises:
        ValueError: for a model that torchvision does not have, weights that are not there, are others, or do not fit.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise BadValue("model", model, f"is no network of torchvision{did_you_mean(model, known)}")
    # Inception and GoogLeNet would otherwise compute weights for many seconds that are replaced.
    quick = {"init_weights": False} if model in ("inception_v3", "googlenet") else {}
    body = models.get_model(model, weights=None, **quick)
    found = load_into(body, model, weights, sha256)
    shown = Preprocessed(BeforeLastLinear(body), size, mean, std, interpolation)
    return _extractor(shown, space or model, f"torchvision {model}, input of its last linear layer", found)


def timm_network(
    model: str,
    weights: str | None,
    sha256: str | None,
    space: str | None = None,
    size: int | None = 224,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    interpolation: str = "bicubic",
) -> Extractor:
    """The extractor with what the classifier of a network of timm is given: its pooled features.

    Args:
        model: timm's name of it, as convnext_tiny; what follows a dot names weights, and is not looked at.
        weights: as of `torchvision_network`.
        sha256: as of `torchvision_network`.
        space: as of `torchvision_network`.
        size: see `Preprocessed`; what timm knows of its own weights is not looked up.
        mean: see `Preprocessed`.
        std: see `Preprocessed`.
        interpolation: see `Preprocessed`.

    Raises:
        ValueError: as `torchvision_network`, or when timm is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ValueError("extractor=timm needs timm: pip install 'diffsweep[timm]'") from None
    name = model.partition(".")[0]
    if not timm.is_model(name):
        raise BadValue("model", model, f"is no network of timm{did_you_mean(name, timm.list_models())}")
    body = timm.create_model(name, pretrained=False)
    found = load_into(body, model, weights, sha256)
    shown = Preprocessed(PooledFeatures(body), size, mean, std, interpolation)
    return _extractor(shown, space or name, f"timm {name}, pooled", found)


def own_network(
    network: Callable[[], nn.Module],
    space: str,
    weights: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    interpolation: str = "bilinear",
) -> Extractor:
    """The extractor with the features of a network of the user's own.

    Args:
        network: makes it: a class, in YAML `_target_: mine.Network` and `_partial_: true`. Called with float pictures
            (N, C, H, W), it gives features (N, d), or a mapping of outputs by name with `features` among them.
        space: name of the features.
        weights: path of its weights, as of `torchvision_network`; None leaves it as it is made, with seed 0.
        sha256: of that file.
        size: see `Preprocessed`.
        mean: see `Preprocessed`.
        std: see `Preprocessed`.
        interpolation: see `Preprocessed`.

    Raises:
        ValueError: for weights that are not there, are others, or do not fit; when it is no network.
    """
    # Random features are features too, if they are the same in every process.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = network()
    if not isinstance(body, nn.Module):
        raise ValueError(f"network gave a {type(body).__name__}: it must make a torch.nn.Module")
    kind = type(body)
    found = load_into(body, space, weights, sha256) if weights is not None else Weights(_state_digest(body), ())
    source = Path(inspect.getfile(kind)).read_bytes()
    shown = Preprocessed(body, size, mean, std, interpolation)
    return _extractor(shown, space, f"{kind.__module__}.{kind.__qualname__} {digest_of(source)}", found)


def _state_digest(network: nn.Module) -> str:
    state = network.state_dict()
    return digest_of(*(part for name in sorted(state) for part in (name, state[name].cpu().numpy().tobytes())))


@torch.inference_mode()
def _tried(shown: Preprocessed, side: int) -> Outputs:
    return shown.eval()(torch.zeros(2, shown.mean.shape[1], side, side, dtype=torch.uint8))


def _extractor(shown: Preprocessed, space: str, architecture: str, weights: Weights) -> Extractor:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", space) or space == "inception":
        known = "is that of the original Inception: use extractor=inception" if space == "inception" else ""
        raise BadValue("space", space, known or "must be a name of small letters, digits and _, for fd_NAME")
    try:
        given = _tried(shown, shown.size or 64)
        other = given if shown.size is not None else _tried(shown, 48)
    except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise BadValue("size", shown.size, f"does not fit {space}: {one_line(error)[:200]}") from None
    if isinstance(given, Tensor) and isinstance(other, Tensor) and given.shape != other.shape:
        raise BadValue("size", None, f"must be given: features of {space} depend on how large the pictures are")
    outputs: Mapping[str, Tensor] = {"features": given} if isinstance(given, Tensor) else given
    features = outputs.get("features") if isinstance(outputs, Mapping) else None
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        what = f"a {type(given).__name__}" if features is None else f"features {tuple(features.shape)}"
        raise ValueError(f"extractor {space} gave {what} of 2 pictures: it must give features (2, d)")
    return Extractor(
        shown,
        space,
        features.shape[1],
        digest_of(architecture, shown.description, weights.digest),
        tuple(outputs),
        "none" if shown.size is None else described(shown.size, shown.mode),
        files=weights.files,
        cpu_batch=CPU_BATCH,
    )
