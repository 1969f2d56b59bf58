"""Features of any image network of `timm`, as DINOv2 and CLIP, from a weights file that the user gives.

Distances in such features follow people's judgement better than FID does: "Exposing flaws of generative model
evaluation metrics and their unfair treatment of diffusion models", arXiv 2306.04675 (DINOv2); "The Role of ImageNet
Classes in Frechet Inception Distance", arXiv 2203.06026 (CLIP). Those papers use their authors' own code, so numbers
need not agree with theirs to the last digit: positions are interpolated and pictures resized as said here.

Nothing is ever downloaded. The SHA-256 of the file is a setting of its own, part of the identity of a result; the path
is not.
"""

from __future__ import annotations

from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from diffsweep.evaluation.efficientnet import described, resized
from diffsweep.evaluation.extractor import CPU_BATCH, Extractor
from diffsweep.evaluation.extractor import sha256 as digest_of
from diffsweep.evaluation.pretrained import File, find
from diffsweep.mistakes import BadValue, one_line


class TimmNetwork(nn.Module):
    """A network of timm, with the preprocessing that its data config tells: uint8 pictures to features (N, d).

    Args:
        body: from `timm.create_model`.
        size: to which pictures are brought, in pixels.
        config: `mean`, `std` (of pictures in 0..1) and `interpolation`, as from `timm.data.resolve_data_config`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, size: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.body = body.requires_grad_(False)
        self.size = size
        self.mode: str = config["interpolation"]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, d) of uint8 (N, 1 or 3, H, W); see `resized`."""
        return self.body((resized(x, self.size, self.mode) / 255 - self.mean) / self.std)


def timm_features(
    model: str, space: str, size: int, weights: str | None = None, sha256: str | None = None, folder: str | None = None
) -> Extractor:
    """The extractor with what a network of timm puts out: the class token of DINOv2, the projected embedding of CLIP.

    Pictures are resized whole, not cropped, whatever the network's own data config says of that.

    Args:
        model: timm's name of the network and its weights, as vit_small_patch14_dinov2.lvd142m.
        space: name of the features, as dinov2: the distance is then `fd_dinov2`.
        size: to which pictures are brought, in pixels; a transformer trained at another interpolates its positions.
        weights: path of the weights (safetensors, with timm's names of them); None looks for MODEL.safetensors in
            `folder` and in torch's hub folder.
        sha256: of that file (hex): part of the signature of a result, as the path is not.
        folder: of weights files, `paths.weights`.

    Raises:
        ValueError: when timm is not installed or has no such network, the file is not there (the line says which to put
            where), has another SHA-256 or none is given (the line says it), or does not fit the network.
    """
    try:
        import timm
        from timm.data.config import resolve_data_config
    except ImportError:
        raise ValueError(f"extractor {space} needs timm: pip install 'diffsweep[timm]'") from None
    name = model.partition(".")[0]
    if not timm.is_model(name):
        raise BadValue("model", model, f"is no network of timm {timm.__version__}")
    url = f"https://huggingface.co/timm/{model} (its model.safetensors)"
    found = find(File(model, f"{model}.safetensors", sha256, url, fetch=False), weights, folder)
    body = _made(timm, model)
    try:
        body.load_state_dict(safetensors.torch.load(found.content))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{found.path} holds no weights of {model}: {reason}") from None
    network = TimmNetwork(body, size, resolve_data_config({}, model=body))
    dimension = _dimension(network, model)
    resize = described(size, network.mode)
    digest = digest_of("timm, its output", model, resize, found.digest)
    return Extractor(network, space, dimension, digest, resize=resize, files=(found.path,), cpu_batch=CPU_BATCH)


def _made(timm: Any, model: str) -> nn.Module:
    try:
        # Weights keep the shapes that they were trained with; positions are interpolated as pictures come.
        return timm.create_model(model, pretrained=False, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(model, pretrained=False)
    except RuntimeError as error:
        raise BadValue("model", model, f"cannot be made: {one_line(error)}") from None


def _dimension(network: TimmNetwork, model: str) -> int:
    try:
        with torch.inference_mode():
            return network.eval()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape[1]
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BadValue("size", network.size, f"does not fit {model}: {reason}") from None
