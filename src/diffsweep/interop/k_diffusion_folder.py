"""A folder of k-diffusion: its training's JSON, and weights in safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffsweep.interop.checkpoint import Checkpoint, check_weights
from diffsweep.interop.configuration import plain, read_object, refuse_unknown
from diffsweep.interop.process import LEVELS, OUTPUTS, SCHEDULES, Process, target
from diffsweep.interop.weights import Weights
from diffsweep.mistakes import one_of, spell

CONFIG = "config.json"
_TYPES = ("image_v1", "image_transformer_v1")
_KNOWN = (
    "type",
    "input_channels",
    "input_size",
    "patch_size",
    "mapping_out",
    "depths",
    "depth",
    "width",
    "d_ff",
    "channels",
    "self_attn_depths",
    "cross_attn_depths",
    "mapping_cond_dim",
    "unet_cond_dim",
    "cross_cond_dim",
    "skip_stages",
    "has_variance",
    "augment_wrapper",
    "augment_prob",
    "dropout_rate",
    "sigma_data",
    "sigma_min",
    "sigma_max",
    "sigma_sample_density",
    "loss_config",
    "loss_weighting",
    "loss_scales",
)
_MOST_LAYERS = 512


def matches(folder: Path) -> bool:
    """Whether a folder has a config of k-diffusion."""
    try:
        return isinstance(read_object(folder / CONFIG).get("model"), dict)
    except ValueError:
        return False


def read(folder: Path) -> Checkpoint:
    """The model in a folder; no code of the folder is run. Raises ValueError, in one line."""
    content = read_object(folder / CONFIG)
    model = {key: plain(value, f"model.{key}") for key, value in content["model"].items()}
    refuse_unknown(model, _KNOWN, f"{folder / CONFIG}: model")
    data = content.get("dataset")
    classes = data.get("num_classes", 0) if isinstance(data, Mapping) else 0
    if isinstance(classes, bool) or not isinstance(classes, int) or not 0 <= classes < 100_000:
        raise ValueError(f"{folder / CONFIG}: num_classes={spell(classes)} must be a number of labels")
    if model.get("loss_config", "karras") != "karras":
        raise ValueError(f"{folder / CONFIG}: loss_config={spell(model['loss_config'])} is not read, only karras is")
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(f"{folder} must have one file of weights in safetensors, and has {len(files)}")
    weights = Weights((files[0],))
    if all(name.startswith("inner_model.") for name in weights.shapes()):
        weights = Weights((files[0],), prefix="inner_model.")
    with torch.device("meta"):
        network = KDiffusionNetwork(model, classes)
    shapes = {name: tuple(value.shape) for name, value in network.model.state_dict().items()}
    check_weights(shapes, weights, str(model["type"]))
    width = float(model.get("sigma_data", 1.0))
    low, high = float(model.get("sigma_min", 1e-2)), float(model.get("sigma_max", 80.0))
    schedule = {"_target_": f"{SCHEDULES}.karras.Karras", "rho": 7.0, "sigma_min": low, "sigma_max": high}
    process = Process(
        schedule,
        target("EDM", sigma_data=width),
        # The network takes the logarithm itself.
        {"_target_": f"{LEVELS}.Sigma", "form": "noise"},
        "data",
        width,
        {"_target_": f"{OUTPUTS}.Keep"},
        (f"noise from {low:g} to {high:g}", f"EDM's preconditioning for data of {width:g}"),
    )
    size = sum(int(torch.Size(shape).numel()) for shape in shapes.values())
    return Checkpoint(
        source=folder,
        format="k-diffusion",
        network={
            "_target_": "diffsweep.interop.k_diffusion_folder.KDiffusionNetwork",
            "model": model,
            "classes": network.classes,
        },
        process=process,
        weights=weights,
        classes=network.classes,
        notes=(f"{model['type']} of k-diffusion, {size:,} parameters",),
    )


class KDiffusionNetwork(nn.Module):
    """A network of k-diffusion, with weights at random until some are loaded.

    Args:
        model: What its JSON says below `model`.
        classes: Number of labels of its data; only a transformer is told any.

    Raises:
        ValueError: for another type, or numbers that make no network.
    """

    def __init__(self, model: Mapping[str, Any], classes: int = 0) -> None:
        super().__init__()
        try:
            from k_diffusion import config as k_config
        except ImportError as error:
            raise ValueError(f"models of k-diffusion need that package ({error}): pip install k-diffusion") from error
        settings = {key: plain(value, key) for key, value in model.items()}
        kind = one_of("type", settings.get("type"), _TYPES)
        for key in ("depth", "depths"):
            counts = settings.get(key) if isinstance(settings.get(key), list) else [settings.get(key)]
            if any(isinstance(count, int) and count > _MOST_LAYERS for count in counts or ()):
                raise ValueError(f"{key}={spell(settings[key])} is more than {_MOST_LAYERS} layers")
        if kind == "image_v1" and any(settings.get(f"{part}_cond_dim") for part in ("mapping", "unet", "cross")):
            raise ValueError("a network of k-diffusion that needs more than x and a level is not read")
        self.classes = classes if kind == "image_transformer_v1" else 0
        self.absent = self.classes or None
        self.shape: tuple[int | None, ...] | None = (settings.get("input_channels"), None, None)
        try:
            full = k_config.load_config({"model": settings, "dataset": {"type": "none", "num_classes": self.classes}})
            self.model: nn.Module = k_config.make_model(full)
        except (AttributeError, ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{kind} cannot be built: {type(error).__name__} {' '.join(str(error).split())}"
            ) from error

    def forward(self, x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's own output, of `x`'s shape."""
        if not self.classes:
            return self.model(x, level)
        return self.model(x, level, class_cond=labels)
