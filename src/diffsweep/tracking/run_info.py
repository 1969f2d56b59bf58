"""How an autoencoder, a fit or a cell is called and described in a logger: id, name, group, a config without depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffsweep.sweep.store.result import CHOICES, GROUPS

# Of the config: what says nothing about a run; and, of a fit, what is done with its weights only.
_APART = ("hydra", "logger", "mode", "paths", "resources")
_OF_CELLS = ("sampler", "guidance", "evaluation")
# Of the config: what an autoencoder depends on.
_OF_AUTOENCODERS = ("autoencoder", "dataset", "trainer")

Kind = Literal["autoencoder", "fit", "cell", "sweep summary"]


@dataclass(frozen=True)
class RunInfo:
    """A run of a logger: that of an autoencoder, of a fit, of a cell, or of the summary of a sweep.

    Attributes:
        kind: W&B's job type.
        signature: its id, so that whoever resumes goes on in the same log.
        folder: its folder.
        name: for people, as "unet cosine v".
        group: the sweep it belongs to, if any.
        config: what W&B shows as its config.
        batch_size: images per training step.
    """

    kind: Kind
    signature: str
    folder: Path
    name: str
    group: str | None
    config: Mapping[str, object]
    batch_size: int = 1

    @property
    def trains(self) -> bool:
        """Whether it is the log of something that is trained, step by step."""
        return self.kind in ("autoencoder", "fit")

    @classmethod
    def of(
        cls,
        kind: Literal["autoencoder", "fit", "cell"],
        folder: Path,
        config: Mapping[str, object],
        choices: Mapping[str, object],
        group: str | None,
    ) -> RunInfo:
        """What lies in a folder, from its resolved config and what was chosen of each group."""
        if kind == "autoencoder":
            config = {key: value for key, value in config.items() if key in _OF_AUTOENCODERS}
            choices = {key: value for key, value in choices.items() if key in _OF_AUTOENCODERS}
            return cls(
                kind,
                folder.name,
                folder,
                " ".join(str(choices.get(key) or "?") for key in _OF_AUTOENCODERS[:2]) if choices else folder.name,
                group,
                flat_config(config, choices) | {kind: folder.name},
                _batch_size(config.get("autoencoder")),
            )
        left_out = _OF_CELLS if kind == "fit" else ()
        # The choices of a fit that belongs to no cell and no sweep are not recorded.
        shown = (
            [str(choices.get(name) or "?") for name in CHOICES if name not in left_out] if choices else [folder.name]
        )
        known = {kind: folder.name} | ({"fit": folder.parent.parent.name} if kind == "cell" else {})
        size = _batch_size(config)
        return cls(
            kind, folder.name, folder, " ".join(shown), group, flat_config(config, choices, left_out) | known, size
        )


def _batch_size(config: object) -> int:
    training = config.get("training") if isinstance(config, Mapping) else None
    batch = training.get("batch_size") if isinstance(training, Mapping) else None
    return batch if isinstance(batch, int) else 1


def flat_config(
    config: Mapping[str, object], choices: Mapping[str, object], left_out: Sequence[str] = ()
) -> dict[str, object]:
    """A config without depth: first what was chosen of each group, then all settings as `sampler/nfe`.

    A part is named by its class, as `sampler/solver`: "Heun". There are no dots in keys, which W&B takes for depth.
    """
    entries: dict[str, object] = {name: choices[name] for name in GROUPS if choices.get(name) and name not in left_out}
    for key, below in config.items():
        if key not in (*_APART, *left_out):
            for name, value in _leaves(str(key), below):
                entries.setdefault(name, value)
    return entries


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, below in value.items():
        if key == "_target_":
            yield name, str(below).rpartition(".")[2]
        elif not str(key).startswith("_"):
            yield from _leaves(f"{name}/{key}", below)
