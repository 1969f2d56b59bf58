"""Who is a run? The hash of its whole resolved config, minus the keys that are declared unable to change a result.

The hash is never taken over a difference from defaults: an edited default must make a new run. Everything that is
not declared below counts, so a key that somebody forgets to declare trains again; it never shares wrongly.

Whoever adds a dataset: `dataset.root` is where the *same* data happen to lie on this machine; `dataset.path` may hold
any data, and `dataset.content` says which. A key that chooses *which* data are read needs another name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from diffsweep.former_names import SIGNED_TOGETHER, signed_keys, signed_target

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Where and how fast it runs, who is told: dotted paths, each with everything below it.
NEUTRAL: tuple[str, ...] = (
    "hydra",
    "mode",
    "sweep",
    "resources",
    "paths",
    "logger",
    "stage",
    # Known by the content of its weights, in diffuser.weights.
    "pretrained",
    # Likewise, in autoencoder.network.weights.
    "autoencoder.network.folder",
    "autoencoder.batch_size",
    # Known by its content, in evaluation.prompts.
    "prompts",
    "dataset.root",
    "dataset.download",
    "dataset.inner.root",
    "dataset.inner.download",
    "dataset.workers",
    # Own pictures are known by dataset.content.
    "dataset.path",
    "dataset.cache",
    "dataset.inner.path",
    "dataset.inner.cache",
    # Language models are known by condition.text.content.
    "condition.text.encoder",
    "condition.text.cache",
    # Only one file is taken.
    "condition.edges.weights",
    # Likewise, by evaluation.metrics.clip_score.content.
    "evaluation.metrics.clip_score.folder",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.threads",
    "trainer.workers",
    "trainer.checkpoint_seconds",
    "trainer.log_every",
    "trainer.progress",
    "trainer.loading",
    "evaluation.batch_size",
    "evaluation.device",
    # Paths; what the file holds is fixed by its checksum.
    "evaluation.extractor.weights",
    "evaluation.extractor.folder",
    "evaluation.extractor.inner.weights",
    "evaluation.extractor.inner.folder",
    "validation.extractor.weights",
    "validation.extractor.folder",
    "validation.extractor.inner.weights",
    "validation.extractor.inner.folder",
)

# Keys that version 0.1 did not have, with the value at which they change nothing: absent and that are one.
NEUTRAL_AT: Mapping[str, object] = {
    "evaluation.reference_samples": None,
    "evaluation.prompts": None,
    "training.accumulate": 1,
    "training.averages": None,
    "training.weight_decay": "all",
    "training.snapshots": 16,
    "training.keep": [],
    # The weak model of autoguidance was always the one that its training chose.
    "guidance.step": None,
    "condition": {},
    "autoencoder": {},
    "backbone.cross_attention": False,
    "backbone.text_shape": [],
    "condition.edges.detector": "sobel",
    "condition.edges.sigma": 1.0,
    "weights.ema": None,
    "weights.step": None,
    "trainer.randomness": "host",
    "trainer.cuda_graphs": False,
    "trainer.channels_last": False,
    "trainer.fused": False,
    "trainer.activation_checkpointing": False,
}

# What is done with finished weights: it can change a cell, never a fit.
INFERENCE: tuple[str, ...] = ("sampler", "guidance", "evaluation", "weights")

# What shapes an autoencoder and the latents of a dataset.
AUTOENCODER: tuple[str, ...] = ("autoencoder", "dataset", "trainer")

# Stands for a key of whatever value.
_ANY = object()

# 48 bits: among 10,000 runs in one folder two share a name with odds of 2e-7, and a folder name stays readable.
LENGTH = 12


def fit_signature(cfg: Mapping[str, Any] | DictConfig) -> str:
    """Name of the training that `cfg` asks for: 12 lower-case hex characters.

    Equal for two configs exactly if they agree on every key outside `NEUTRAL` and `INFERENCE`.

    Raises ValueError for a config that cannot be signed: a missing value, an interpolation that fails, NaN or
    infinity, a value that is no text, number, truth value, null, list or mapping.
    """
    return Signer().sign(cfg)[0]


def cell_signature(cfg: Mapping[str, Any] | DictConfig) -> str:
    """Name of the evaluated run that `cfg` asks for: 12 lower-case hex characters; errors as `fit_signature`."""
    return Signer().sign(cfg)[1]


def autoencoder_signature(cfg: Mapping[str, Any] | DictConfig) -> str | None:
    """Name of the autoencoder in whose latents `cfg` works: 12 lower-case hex characters; None if in none.

    Equal for two configs exactly if they agree on every key below `AUTOENCODER` that is not in `NEUTRAL`; errors as
    `fit_signature`.
    """
    return Signer().sign_autoencoder(cfg)


class Signer:
    """Signs many configs: what lies below a top-level key is spelled once, however many configs share that object.

    So no mapping or list in a signed config may change for as long as its signer is used.
    """

    def __init__(self) -> None:
        # With the object itself, so that its id stays its own.
        self._known: dict[tuple[str, int], tuple[Any, _Texts]] = {}
        self._former: dict[tuple[int, ...], tuple[list[Any], dict[str, Any]]] = {}

    def sign(self, cfg: Mapping[str, Any] | DictConfig) -> tuple[str, str]:
        """`fit_signature` and `cell_signature` of `cfg`; errors as theirs."""
        plain = resolved(cfg)
        _check_names(plain, "")
        plain = self._with_signed_keys(plain)
        fit: list[str] = []
        cell: list[str] = []
        # Every key first and sorted later: of several mistakes, the first in the config is named.
        texts = {key: self._texts(key, below) for key, below in plain.items()}
        for key in sorted(texts):
            for parts, text in zip((fit, cell), texts[key], strict=True):
                if text is not None:
                    parts.append(f"{json.dumps(key)}:{text}")
        return _digest(fit), _digest(cell)

    def sign_autoencoder(self, cfg: Mapping[str, Any] | DictConfig) -> str | None:
        """`autoencoder_signature` of `cfg`; errors as its."""
        plain = resolved(cfg)
        if not plain.get("autoencoder"):
            return None
        # As of a cell: nothing of these keys is left to inference.
        texts = {key: self._texts(key, plain[key])[1] for key in AUTOENCODER if key in plain}
        return _digest(f"{json.dumps(key)}:{text}" for key, text in sorted(texts.items()) if text is not None)

    def _with_signed_keys(self, plain: dict[str, Any]) -> dict[str, Any]:
        # A key that is not there is another thing than null.
        together = [plain.get(key, _ABSENT) for key in SIGNED_TOGETHER]
        key = tuple(map(id, together))
        if key not in self._former:
            self._former[key] = together, signed_keys(plain)
        return {name: below for name, below in plain.items() if name not in SIGNED_TOGETHER} | self._former[key][1]

    def _texts(self, key: str, below: Any) -> _Texts:
        if not isinstance(below, (Mapping, list)):
            return _texts(key, below)
        known = self._known.get((key, id(below)))
        if known is None:
            known = self._known[key, id(below)] = below, _texts(key, below)
        return known[1]


_ABSENT = object()

# The canonical JSON of what a fit and a cell keep below one top-level key; None if nothing.
_Texts: TypeAlias = tuple[str | None, str | None]


def _texts(key: str, below: Any) -> _Texts:
    tree = {key: canonical(below, key)}
    for path, value in NEUTRAL_AT.items():
        _drop(tree, path.split("."), value)
    cell = _without(tree, NEUTRAL)
    return _without(tree, INFERENCE), cell


def _without(tree: dict[str, Any], left_out: Iterable[str]) -> str | None:
    """JSON of the one value of `tree`, from which the paths are dropped; None if that drops it all."""
    for path in left_out:
        _drop(tree, path.split("."))
    return next((_json(value) for value in tree.values()), None)


def _json(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(parts: Iterable[str]) -> str:
    """The name of the mapping whose members are spelled in `parts`, in the order of their keys."""
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode()).hexdigest()[:LENGTH]


def resolved(cfg: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """`cfg` as plain nested containers, interpolations resolved; a plain mapping counts as resolved already.

    Raises ValueError, in one line, for a missing value (`???`) or an interpolation that cannot be resolved.
    """
    if isinstance(cfg, dict):
        return cfg
    # Imported here: reading records of finished runs needs neither OmegaConf nor its 0.1 s.
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not OmegaConf.is_config(cfg):
        return dict(cfg)
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True, enum_to_str=True)  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        ours = re.fullmatch(r"(ValueError|OSError|BadValue) raised while resolving interpolation: (.*)", reason)
        if ours is not None:
            # A resolver of ours says what is wrong in the user's words.
            raise ValueError(ours[2]) from error
        if "Missing mandatory value" in reason:
            reason = f"it has no value: give it one, as {error.full_key}=..."
        absent = re.search(r"Environment variable '(\w+)' not found", reason)
        if absent is not None:
            reason = f"the environment variable {absent[1]} is not set"
        raise ValueError(f"the config is not complete at {error.full_key or 'its top'}: {reason}") from error
    if not isinstance(plain, dict):
        raise ValueError(f"a config must be a mapping of names to values, not {type(plain).__name__}")
    return plain  # type: ignore[return-value]


def canonical(value: Any, key: str = "") -> Any:
    """`value` in the one spelling that is hashed: equal numbers are one (1 and 1.0, 0 and -0.0), tuples are lists.

    `key` is the dotted path of `value`, for messages. Raises ValueError for what JSON cannot hold faithfully.
    """
    if value is None or isinstance(value, (bool, str)):
        value = value.value if isinstance(value, Enum) else value
        return signed_target(value) if isinstance(value, str) and key.endswith("_target_") else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{key}={value}: a setting must be a finite number")
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, Mapping):
        _check_names(value, key)
        return {name: canonical(below, f"{key}.{name}" if key else name) for name, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(below, f"{key}[{i}]") for i, below in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.name
    raise ValueError(
        f"{key} is a {type(value).__name__}: a setting must be text, a number, true/false, null, a list or a mapping"
    )


def _check_names(value: Mapping[Any, Any], key: str) -> None:
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"{key or 'the config'} has the key {name!r}: keys must be text; write it in quotes")


def _drop(tree: dict[str, Any], path: list[str], value: object = _ANY) -> None:
    """Remove `path` and whatever mapping above it that leaves empty, so that absent and only-neutral are one.

    With `value` only if that lies there.
    """
    head, *rest = path
    below = tree.get(head)
    if rest and isinstance(below, dict):
        _drop(below, rest, value)
    if below == {} if rest else value is _ANY or below == value:
        tree.pop(head, None)
