"""Keys of a config that nothing reads: a slip of the hand must not train the same model again under another name.

A key is read if the constructor that its `_target_` names takes it, if a run reads it itself (`SETTINGS`), or if an
interpolation names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from diffsweep.mistakes import did_you_mean
from diffsweep.sweep.plan.constructor import parameters
from diffsweep.sweep.plan.sense import refuse_missing_parts
from diffsweep.sweep.store.signature import resolved

if TYPE_CHECKING:
    from omegaconf import DictConfig

_JOB = ("partition", "account", "qos", "time", "memory", "cpus", "gres", "constraint", "exclude", "setup", "extra")
# Where a config has no `_target_`: dotted path -> the keys that a run reads there. A part has a `_target_` of its own.
_STEP = ("steps", "batch_size", "accumulate", "warmup", "decay", "clip", "weight_decay", "flip")
_TRAINING = (*_STEP, "averages", "snapshots", "keep")
_WHOLE = (
    "seed",
    "mode",
    "training",
    "ema",
    "paths",
    "condition",
    "autoencoder",
    "stage",
    "evaluation",
    "weights",
    "logger",
    "trainer",
    "resources",
)
PARTS = ("dataset", "schedule", "diffuser", "backbone", "sampler", "guidance", "optimizer", "validation")
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "": (*_WHOLE, "pretrained", "prompts", "sweep", *PARTS),
    "sweep": ("name",),
    "training": _TRAINING,
    "weights": ("ema", "step"),
    "autoencoder": (
        "network",
        "latent_shape",
        "seed",
        "training",
        "ema",
        "optimizer",
        "losses",
        "discriminator",
        "batch_size",
    ),
    "autoencoder.training": ("steps", "batch_size", "warmup", "decay", "clip", "flip"),
    "autoencoder.ema": ("decay",),
    "ema": ("decay",),
    "paths": ("runs", "data", "cache", "weights"),
    "evaluation": (
        "samples",
        "batch_size",
        "seed",
        "reference",
        "reference_samples",
        "prompts",
        "extractor",
        "metrics",
    ),
    "trainer": (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "precision",
        "compile",
        "deterministic",
        "threads",
        "checkpoint_seconds",
        "log_every",
        "progress",
        "loading",
        "randomness",
        "cuda_graphs",
        "channels_last",
        "fused",
        "activation_checkpointing",
    ),
    "trainer.loading": ("resident", "workers", "prefetch"),
    "resources": ("fit", "cells", "finish"),
    **dict.fromkeys(PARTS, ()),
    **{f"resources.{job}": _JOB for job in ("fit", "cells", "finish")},
}

# Groups whose options write to keys of other names.
_ELSEWHERE = ("experiment", "extractor", "metric", "sweeps")

# What `instantiate` itself reads.
_INSTANTIATE = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")


def refuse_unread(cfg: DictConfig) -> None:
    """Raise ValueError, in one line, for the first key of a composed config that no part of a run reads.

    `cfg` without its node `hydra`, or with it; a config that cannot be resolved is left to whoever resolves it.
    """
    from omegaconf import OmegaConf

    plain = resolved(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    refuse_missing_parts(plain)
    named: frozenset[str] | None = None
    for path, place, valid in _unread(plain, ""):
        # Few configs have such a key, and fewer one that is meant.
        named = _named(cfg) if named is None else named
        if _is_named(path, named):
            continue
        raise ValueError(_refusal(path, place, valid, plain))


def _refusal(path: str, place: Mapping[str, Any], valid: list[str], plain: Mapping[str, Any]) -> str:
    above, _, key = path.rpartition(".")
    value, target = place[key], place.get("_target_")
    shown = "{...}" if isinstance(value, dict) else "null" if value is None else str(value)
    said = f"{path}={shown} is {f'no parameter of {target}' if target else 'read by no part of a run'}"
    if above in PARTS and not target:
        return f"{said}: choose an option of {above} that has it"
    near = [one for one in (*_keys(plain), *valid, *_ELSEWHERE) if not f"{path}.".startswith(f"{one}.")]
    return said + (did_you_mean(path, near) or f"; valid here: {', '.join(sorted(valid)) or 'nothing'}")


def known_keys(cfg: DictConfig) -> list[str]:
    """The dotted keys that may be set in a composed config, and the groups whose options write to others.

    Those that constructors take and no YAML names are among them. Raises ValueError for a config that is incomplete.
    """
    from omegaconf import OmegaConf

    plain = resolved(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    return [*_keys(plain), *_ELSEWHERE]


def _unread(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any], list[str]]]:
    """Each key that is not read, the mapping that has it, and the dotted keys that are read there."""
    if isinstance(node, list):
        for place, below in enumerate(node):
            yield from _unread(below, f"{path}.{place}")
    if not isinstance(node, dict):
        return
    taken = _taken(node, path)
    for key, below in node.items():
        full = f"{path}.{key}" if path else str(key)
        if taken is not None and key not in taken:
            yield full, node, [f"{path}.{one}" if path else one for one in taken if one not in _INSTANTIATE]
        else:
            yield from _unread(below, full)


def _taken(node: Mapping[str, Any], path: str) -> tuple[str, ...] | None:
    """The keys that are read in a mapping; None if any may be."""
    if "_target_" in node:
        names = parameters(str(node["_target_"]))
        return None if names is None else (*sorted(names), *_INSTANTIATE)
    return SETTINGS.get(path)


def _named(cfg: DictConfig) -> frozenset[str]:
    """Every dotted key that an interpolation of the config may name."""
    from omegaconf import OmegaConf

    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    raw.pop("hydra", None)
    return frozenset(key for path, text in _texts(raw, ()) for key in _mentioned(text, path))


def _texts(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(node, (dict, list)):
        for key, below in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts(below, (*path, str(key)))
    elif isinstance(node, str) and "${" in node:
        yield path, node


def _mentioned(text: str, path: tuple[str, ...]) -> Iterator[str]:
    # More than the keys that it names: a word that is none of them does no harm.
    for dots, word in re.findall(r"(\.*)(\w[\w-]*(?:[.\[][\w-]+\]?)*)", text[text.index("${") :]):
        key = re.sub(r"[\[\]]+", ".", word).strip(".")
        yield ".".join([*path[: len(path) - len(dots)], key]) if dots else key


def _is_named(path: str, named: Iterable[str]) -> bool:
    """Whether an interpolation names a key or one below it."""
    return any(f"{one}.".startswith(f"{path}.") for one in named)


def _keys(node: Any, path: str = "") -> Iterator[str]:
    """The dotted keys that are read: those that the config has, and those that its constructors take."""
    if isinstance(node, dict):
        taken = _taken(node, path)
        for key in dict.fromkeys([*(taken or ()), *(key for key in node if taken is None or key in taken)]):
            if key not in _INSTANTIATE:
                full = f"{path}.{key}" if path else str(key)
                yield full
                yield from _keys(node.get(key), full)
