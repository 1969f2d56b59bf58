"""Captions for data that have classes only: templates with the name of the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffsweep.data.examples import Dataset, Examples, Split, fixed
from diffsweep.data.source import in_memory
from diffsweep.mistakes import BadValue


class Captioned(Dataset):
    """Another dataset, which fits into memory, with a caption for each example: template i mod T for example i.

    Args:
        inner: a dataset with classes.
        names: of its classes, as they stand in a caption: "an ankle boot".
        templates: T texts, in which {} stands for the name.
        shape: that of `inner`, nothing else.
        classes: those of `inner`, nothing else.
        sigma_data: that of `inner`, nothing else.

    Raises:
        ValueError: for names or templates that do not fit.
    """

    def __init__(
        self,
        inner: Dataset,
        names: Sequence[str],
        templates: Sequence[str],
        shape: tuple[int, ...],
        classes: int,
        sigma_data: float,
    ) -> None:
        super().__init__(shape, classes, sigma_data, inner.modality)
        # No class variable here: it is called after its examples.
        self.name = f"{inner.name}_captions"  # pyright: ignore[reportAttributeAccessIssue]
        for key in ("shape", "classes", "sigma_data"):
            fixed(self.name, key, getattr(self, key), getattr(inner, key))
        if len(names) != inner.classes:
            raise BadValue("names", list(names), f"must be {inner.classes}, one for each class of {inner.name}")
        if not templates or any(text.count("{}") != 1 for text in templates):
            raise BadValue("templates", list(templates), "must be texts with one {} for the name of the class")
        self.inner, self.names, self.templates = inner, list(names), list(templates)
        self.stored, self.encode, self.decode = inner.stored, inner.encode, inner.decode

    def load(self, split: Split) -> Examples:
        """The examples of `inner`, with the entry `caption`; see `Dataset.load`."""
        found = in_memory(self.inner.load(split), torch.device("cpu"))
        captions = [
            self.templates[i % len(self.templates)].replace("{}", self.names[label])
            for i, label in enumerate(found.labels.tolist())
        ]
        others = {name: entry for name, entry in found.entries.items() if name != "label"}
        return Examples(found.x, found.labels, others | {"caption": captions})
