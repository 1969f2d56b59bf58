"""A model that was trained elsewhere, as its folder or file describes it, whatever the format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.interop.process import Node, Process, shifted
from diffsweep.interop.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

# What the names of weights begin with in a `denoising_network.DenoisingNetwork`.
INSIDE = "network.model."


@dataclass(frozen=True)
class TextReader:
    """The language models of a pipeline, which give a fixed number of rows for any text.

    Attributes:
        folder: Of the language model, or of the pipeline where it has several.
        pipeline: Its kind, as of condition.text.pipeline.
        length: Number of rows: tokens, and one for the text as a whole where the network is told that.
        width: Numbers of each.
        zero_if_empty: Whether rows of no text at all are zeros.
    """

    folder: Path
    pipeline: str
    length: int
    width: int
    zero_if_empty: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """What a foreign folder or file describes; nothing in it has been run.

    Attributes:
        source: Where it is.
        format: Name of the format.
        network: Node of the network, called with a state, a level input and labels.
        process: Of its training.
        weights: Of the network.
        classes: How many labels it is told; 0 for none.
        notes: What was understood, for people, beside that of the process.
        licence: As its model card names it; None if it does not say.
        text: What reads the text that the network is told; None if it is told none.
        patch: Side of what the network makes a token of; None if it makes none.
    """

    source: Path
    format: str
    network: Node
    process: Process
    weights: Weights
    classes: int
    notes: tuple[str, ...] = ()
    licence: str | None = None
    text: TextReader | None = None
    patch: int | None = None

    def fields(self, shape: Callable[[], Sequence[int]]) -> dict[str, Callable[[], Any]]:
        """What a config asks for by `${checkpoint:FIELD}`; `shape` is that of what the network sees."""
        process = self.process
        return {
            "schedule": lambda: self._schedule(shape),
            "network": lambda: self.network,
            "target": lambda: process.target,
            "level": lambda: process.level,
            "scale": lambda: process.scale,
            "sigma_data": lambda: process.sigma_data,
            "classes": lambda: self.classes,
            "output": lambda: process.output,
            "weights": self.weights.digest,
            "text_shape": lambda: [] if self.text is None else [self.text.length, self.text.width],
            "text_encoder": lambda: str(self._reader.folder),
            "text_length": lambda: self._reader.length,
            "text_width": lambda: self._reader.width,
            "text_pipeline": lambda: self._reader.pipeline,
        }

    def _schedule(self, shape: Callable[[], Sequence[int]]) -> Node:
        shift = self.process.shift
        if shift is None or self.patch is None:
            return self.process.schedule
        tokens = math.prod(side // self.patch for side in shape()[1:])
        return shifted(self.process.schedule, shift.factor(tokens))

    @property
    def _reader(self) -> TextReader:
        if self.text is None:
            raise ValueError(f"{self.source} has no language model: the network is told no text")
        return self.text

    def state(self) -> dict[str, Tensor]:
        """The weights by their names in a `DenoisingNetwork`. Raises ValueError."""
        return {f"{INSIDE}{name}": value for name, value in self.weights.tensors().items()}

    def digest(self) -> str:
        """Of the weights, by their content. Raises ValueError."""
        return self.weights.digest()

    def understood(self) -> list[str]:
        """What was understood, one line each."""
        return [*self.notes, *self.process.notes]


def read(source: Path) -> Checkpoint:
    """What lies at a path.

    Raises:
        ValueError: in one line, if nothing is there, or nothing that can be read, or that would need code to be run.
    """
    from diffsweep.interop import described_folder, diffusers_folder, k_diffusion_folder

    if not source.exists():
        raise ValueError(f"{source} is not there: name a folder or file of a trained model")
    for one in (described_folder, k_diffusion_folder) if source.is_dir() else ():
        if one.matches(source):
            return one.read(source)
    if source.is_dir() and diffusers_folder.matches(source):
        return diffusers_folder.read(source)
    if source.is_dir():
        raise ValueError(
            f"{source} is no folder of a model that is known: it has no model_index.json (a pipeline of diffusers), no "
            "config.json (a network of diffusers or k-diffusion) and no model.yaml (docs/checkpoints.md)"
        )
    raise ValueError(
        f"{source} does not say how its model was trained: put it into a folder with a model.yaml that does "
        "(docs/checkpoints.md), or name a folder of diffusers"
    )


def check_weights(shapes: dict[str, tuple[int, ...]], weights: Weights, what: str) -> None:
    """Refuse weights that are not those of a network, before either is made.

    Args:
        shapes: Of the network's tensors, by name.
        weights: What there is.
        what: The network, for the message.

    Raises:
        ValueError: naming the first that is missing, too much, or of another shape.
    """
    found = weights.shapes()
    where = weights.files[0]
    for name, shape in shapes.items():
        if name not in found:
            raise ValueError(f"{where} has no weight {name}, which {what} needs: it belongs to another config.json")
        if found[name] != shape:
            raise ValueError(f"{where}: weight {name} is {found[name]}, and {what} has {shape} there")
    more = sorted(found.keys() - shapes.keys())
    if more:
        raise ValueError(f"{where} has the weight {more[0]}, which {what} has not: it belongs to another config.json")
