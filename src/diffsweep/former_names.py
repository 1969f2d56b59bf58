"""Former import paths and keys of configs: a config written by an earlier version still works.

Signatures hash a whole config, so for signatures only a class that moves keeps the path that it had at first, and a key
that went counts as if it were there with the value at which it did nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Path of today -> path of the first version. An entry stays for as long as runs folders of that version are read.
FORMER = {
    "diffsweep.entry.sweep_end.SweepTable": "diffsweep.report.callback.SweepTable",
    "diffsweep.scoring.model_metrics.Likelihood": "diffsweep.training.likelihood.Likelihood",
    "diffsweep.scoring.shipped_classifier.Shipped": "diffsweep.training.judge.Shipped",
    "diffsweep.tracking.loggers.csv": "diffsweep.training.loggers.csv",
    "diffsweep.tracking.loggers.tensorboard": "diffsweep.training.loggers.tensorboard",
    "diffsweep.tracking.wandb_settings.WandbSettings": "diffsweep.training.loggers.Wandb",
}

# Keys that users know and that are there no more -> what to write now.
REPLACED_KEYS = {
    "backbone.classes": "what a model is told is a condition now, condition=label or none",
    "guidance.classes": "guidance compares with no condition now, whatever that is: leave it out",
    "training.drop_labels": "write condition.label.drop",
}

_CURRENT = {former: current for current, former in FORMER.items()}


def signed_target(target: str) -> str:
    """The path under which signatures know the class `target`."""
    return FORMER.get(target, target)


def with_current_targets(config: Any) -> Any:
    """A copy of the plain containers `config` in which every `_target_` is a path of today."""
    if isinstance(config, Mapping):
        moved = {key: with_current_targets(value) for key, value in config.items()}
        target = config.get("_target_")
        return moved | {"_target_": _CURRENT[target]} if target in _CURRENT else moved
    return [with_current_targets(value) for value in config] if isinstance(config, (list, tuple)) else config


_NETWORKS = ("UNet", "DiT", "EDM2", "MLP", "own_network.OwnNetwork", "diffusers_unet.DiffusersUNet")
# Networks that were told labels by a key of their own.
_WITH_CLASSES = frozenset(f"diffsweep.backbones.{name}" for name in _NETWORKS)
_GUIDANCE_WITH_CLASSES = frozenset(
    f"diffsweep.diffusion.guidance.{name}" for name in ("CFGpp", "ClassifierFree", "Interval", "Rescaled")
)
_LABEL = "diffsweep.conditioners.Label"


# Top-level keys that `signed_keys` looks at.
SIGNED_TOGETHER = ("condition", "backbone", "training", "guidance")


def signed_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a plain config is signed as: with keys that are there no more, where they can say the same.

    A model that was told nothing but labels was told them by its network's own key.
    """
    found = {key: config[key] for key in SIGNED_TOGETHER if key in config}
    backbone, training = found.get("backbone"), found.get("training")
    if not isinstance(training, Mapping):
        return found
    classes, drop = 0, 0.1
    told_by_network = isinstance(backbone, Mapping) and backbone.get("_target_") in _WITH_CLASSES
    match found.get("condition"):
        case {"label": {"_target_": target, "classes": told, "drop": dropped, **rest}, **others} if (
            told_by_network and target == _LABEL and not rest and not others
        ):
            classes, drop = told, dropped
            del found["condition"]
    found["training"] = {"drop_labels": drop, **training}
    if isinstance(backbone, Mapping) and told_by_network:
        found["backbone"] = {"classes": classes, **backbone}
    guidance = found.get("guidance")
    if isinstance(guidance, Mapping) and guidance.get("_target_") in _GUIDANCE_WITH_CLASSES:
        found["guidance"] = {"classes": classes, **guidance}
    return found


def with_current_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of a run, plain, with the keys of today: labels that a network was told are a condition now."""
    changed = dict(config)
    backbone, training, guidance = (config.get(key) for key in ("backbone", "training", "guidance"))
    drop = 0.1
    if isinstance(training, Mapping) and "drop_labels" in training:
        drop = training["drop_labels"]
        changed["training"] = {key: value for key, value in training.items() if key != "drop_labels"}
    if isinstance(backbone, Mapping) and backbone.get("_target_") in _WITH_CLASSES and "classes" in backbone:
        changed["backbone"] = {key: value for key, value in backbone.items() if key != "classes"}
        if backbone["classes"]:
            label = {"_target_": _LABEL, "classes": backbone["classes"], "drop": drop}
            changed["condition"] = {"label": label, **(config.get("condition") or {})}
    if isinstance(guidance, Mapping) and guidance.get("_target_") in _GUIDANCE_WITH_CLASSES:
        changed["guidance"] = {key: value for key, value in guidance.items() if key != "classes"}
    return changed
