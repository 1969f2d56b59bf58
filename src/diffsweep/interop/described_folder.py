"""A folder with model.yaml: a state_dict of any network, and in words what it predicts and how it is told the level.

network: {_target_: my_networks.Net, width: 64}    # your own class, or dit: of DiT's and SiT's published weights
weights: model.safetensors                         # beside it; .pt if it holds tensors only
entry: ema                                         # of a .pt that holds several
prefix: module.                                    # that names begin with
predicts: eps                                      # eps, x0, v, flow, velocity (x0 - eps), score, edm
level: timestep                                    # timestep, noise, log, quarter_log, logsnr, time, data_time
schedule: linear                                   # a name, or {_target_: diffsweep.diffusion.schedules...}
scale: path                                        # of its input: path, unit or data
sigma_data: 0.5                                    # for edm and scale=data
classes: 10                                        # labels that it is told
absent: 10                                         # the label that means none
keyword: y                                         # name of its argument for labels
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffsweep.interop.checkpoint import Checkpoint
from diffsweep.interop.configuration import plain, refuse_unknown
from diffsweep.interop.process import LEVELS, OUTPUTS, SCHEDULES, Node, Process, negative, target
from diffsweep.interop.weights import Weights, is_weights, pickled_entries
from diffsweep.mistakes import one_of, spell

DESCRIPTION = "model.yaml"
_KEYS = (
    "network",
    "weights",
    "entry",
    "prefix",
    "predicts",
    "level",
    "schedule",
    "scale",
    "sigma_data",
    "classes",
    "absent",
    "keyword",
)
_SCHEDULES: Mapping[str, Node] = {
    "linear": {"_target_": f"{SCHEDULES}.linear.linear_betas", "beta_start": 1e-4, "beta_end": 0.02, "steps": 1000},
    "scaled_linear": {
        "_target_": f"{SCHEDULES}.linear.scaled_linear_betas",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "steps": 1000,
    },
    "cosine_betas": {"_target_": "diffsweep.interop.betas.cosine_betas", "steps": 1000, "beta_max": 0.999},
    "cosine": {"_target_": f"{SCHEDULES}.Cosine"},
    "rectified": {"_target_": f"{SCHEDULES}.Rectified"},
    "karras": {"_target_": f"{SCHEDULES}.Karras", "rho": 7.0, "sigma_min": 0.002, "sigma_max": 80.0},
    "ve": {"_target_": f"{SCHEDULES}.VE", "sigma_min": 0.002, "sigma_max": 80.0},
}
_LEVELS: Mapping[str, Node] = {
    "timestep": {"_target_": f"{LEVELS}.Timestep", "count": 1000, "whole": False},
    **{form: {"_target_": f"{LEVELS}.Sigma", "form": form} for form in ("noise", "log", "quarter_log")},
    "logsnr": {"_target_": f"{LEVELS}.LogSNR", "scale": 1.0, "limit": 20.0},
    "time": {"_target_": f"{LEVELS}.Time", "scale": 1.0, "data_last": False},
    "data_time": {"_target_": f"{LEVELS}.Time", "scale": 1.0, "data_last": True},
}
_LONGEST = 20_000


def matches(folder: Path) -> bool:
    """Whether a folder has a description."""
    return (folder / DESCRIPTION).is_file()


def read(folder: Path) -> Checkpoint:
    """The model that a folder describes.

    Its network's class is only named, not imported: whoever builds it decides whether it is trusted.

    Raises:
        ValueError: in one line, for what is missing, unknown, or goes not together.
    """
    file = folder / DESCRIPTION
    content = _content(file)
    try:
        return _checkpoint(folder, content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _content(file: Path) -> dict[str, Any]:
    import yaml

    try:
        if file.stat().st_size > _LONGEST:
            raise ValueError(f"{file} is no description: it has {file.stat().st_size:,} bytes")
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold names and values")
    return content


def _checkpoint(folder: Path, content: dict[str, Any]) -> Checkpoint:
    refuse_unknown(map(str, content), _KEYS, "it")
    for key in ("network", "weights", "predicts", "level", "schedule"):
        if key not in content:
            raise ValueError(f"{key} is missing")
    weights = _weights(folder, content)
    width = _number("sigma_data", content.get("sigma_data", 0.5))
    targets = {
        **{name: target(kind) for name, kind in (("eps", "Eps"), ("x0", "X0"), ("v", "V"), ("flow", "Flow"))},
        "velocity": negative(target("Flow")),
        "score": {"_target_": "diffsweep.interop.targets.PlainScore"},
        "edm": target("EDM", sigma_data=width),
    }
    predicts = one_of("predicts", content["predicts"], targets)
    scale = one_of("scale", content.get("scale", "data" if predicts == "edm" else "path"), ("path", "unit", "data"))
    process = Process(
        _named("schedule", content["schedule"], _SCHEDULES, (f"{SCHEDULES}.", "diffsweep.interop.betas.")),
        targets[predicts],
        _named("level", content["level"], _LEVELS, (f"{LEVELS}.",)),
        scale,
        width,
        {"_target_": f"{OUTPUTS}.Keep"},
        (
            f"predicts {predicts}",
            f"level told as {spell(content['level'])}",
            f"schedule {spell(content['schedule'])}",
        ),
    )
    network, classes, said = _network(content, weights)
    return Checkpoint(folder, "state_dict", network, process, weights, classes, (said,))


def _weights(folder: Path, content: Mapping[str, Any]) -> Weights:
    name = str(content["weights"])
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII) or not is_weights(Path(name)):
        raise ValueError(f"weights={spell(name)} must be the name of a .safetensors or .pt file beside it")
    file = folder / name
    if not file.is_file():
        raise ValueError(f"weights={name} is not there")
    entry, prefix = (str(content.get(key, "")) for key in ("entry", "prefix"))
    if not entry and file.suffix != ".safetensors":
        known = pickled_entries(file)
        if known:
            raise ValueError(f"{name} holds several sets of weights: choose one, as entry: {known[0]}")
    return Weights((file,), entry, prefix)


def _network(content: Mapping[str, Any], weights: Weights) -> tuple[Node, int, str]:
    given = content["network"]
    shapes = weights.shapes()
    size = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        size += count
    if given == "dit":
        node = _dit(shapes)
        return node, node["classes"], f"DiT of {size:,} parameters, told one of {node['classes']} labels"
    if not isinstance(given, dict) or not isinstance(given.get("_target_"), str):
        raise ValueError(f"network={spell(given)} must be dit, or name a class of yours: {{_target_: module.Class}}")
    path = given["_target_"]
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path, re.ASCII):
        raise ValueError(f"network._target_={spell(path)} is no dotted name of a class")
    arguments = {str(key): plain(value, f"network.{key}") for key, value in given.items() if key != "_target_"}
    classes = content.get("classes", 0)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise ValueError(f"classes={spell(classes)} must be a number of labels, 0 for none")
    node = {
        "_target_": "diffsweep.interop.module_network.ModuleNetwork",
        "module": {"_target_": path, **arguments},
        "classes": classes,
        "absent": plain(content.get("absent"), "absent"),
        "keyword": plain(content.get("keyword"), "keyword"),
        "shape": None,
    }
    return node, classes, f"{path} with {size:,} weights"


def _dit(shapes: Mapping[str, tuple[int, ...]]) -> Node:
    """What the shapes of DiT's weights say of the network; the number of heads is that of its published sizes."""
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        _, tokens, _ = shapes["pos_embed"]
        classes = shapes["y_embedder.embedding_table.weight"][0] - 1
        outputs = shapes["final_layer.linear.weight"][0] // patch**2
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"these are no weights of a DiT: {error} is missing or of another shape") from error
    numbers = [int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))]
    head = 72 if width == 1152 else 64
    if width % head or not numbers:
        raise ValueError(f"a DiT of width {width} has no number of heads that is known: name its class as network")
    return {
        "_target_": "diffsweep.interop.dit.DiT",
        "channels": channels,
        "size": round(tokens**0.5) * patch,
        "patch": patch,
        "width": width,
        "depth": max(numbers) + 1,
        "heads": width // head,
        "classes": classes,
        "outputs": outputs,
    }


def _named(key: str, given: object, known: Mapping[str, Node], places: tuple[str, ...]) -> Node:
    if isinstance(given, dict) and isinstance(given.get("_target_"), str):
        if not given["_target_"].startswith(places):
            raise ValueError(f"{key}._target_={spell(given['_target_'])} must be one of {places[0]}...")
        return {
            str(name): value if name == "_target_" else plain(value, f"{key}.{name}") for name, value in given.items()
        }
    return dict(known[one_of(key, given, known)])


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise ValueError(f"{name}={spell(value)} must be a number above 0")
    return float(value)
