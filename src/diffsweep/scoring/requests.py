"""What each sample is asked for: a function of its number, so that columns of a report mean one request everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsweep.conditioners.conditioned import read_condition
from diffsweep.conditioners.conditioner import Conditioner, InTurn, ReadsTexts, prepare
from diffsweep.conditioners.text_embeddings import clean
from diffsweep.data.examples import Dataset, Examples
from diffsweep.data.source import Source, in_memory
from diffsweep.diffusion.condition import Condition, Entry
from diffsweep.files import write_json
from diffsweep.settings import NO_CHOICE, SampleChoice

# Numbers of samples that are looked up at a time: what they are told may be large.
_AT_A_TIME = 500


@dataclass(frozen=True, eq=False)
class Requests:
    """The condition of numbered samples.

    Labels alone come in turn. Anything else is read from a held-out example, and everything from the same one: sample i
    is asked for what example i of the test split shows, from its beginning again after its end.

    Attributes:
        conditioners: By the names of their entries; empty for samples that are asked for nothing.
        dataset: Of the held-out examples.
        choice: What is asked for in the place of that.
        pictures: As stored, (M, ...): what is read from held-out examples is read from these in turn; None for those.

    Raises:
        ValueError: for labels that the data do not have, or where nothing is told a label, or a text.
    """

    conditioners: Mapping[str, Conditioner]
    dataset: Dataset
    choice: SampleChoice = NO_CHOICE
    pictures: Tensor | None = None

    def __post_init__(self) -> None:
        if self.pictures is not None and all(isinstance(one, InTurn) for one in self.conditioners.values()):
            raise ValueError(
                "pictures cannot be asked for: this model is told nothing that is read from a picture, as edges are "
                "(condition=edges, superres)"
            )
        labels, texts = [*self.choice.labels], [*self.choice.prompts]
        labels += [] if self.choice.negative_label is None else [self.choice.negative_label]
        texts += [] if self.choice.negative_prompt is None else [self.choice.negative_prompt]
        for label in labels:
            if "label" not in self.conditioners:
                raise ValueError(f"label {label} cannot be asked for: this model is told no label (condition=label)")
            if not 0 <= label < self.dataset.classes:
                raise ValueError(
                    f"label {label} is none of dataset={self.dataset.name}: 0 to {self.dataset.classes - 1}"
                )
        for text in texts:
            if not self._texts:
                raise ValueError(
                    f"the prompt '{text}' cannot be asked for: this model is told no text (condition=text)"
                )
            if not text.strip():
                raise ValueError("a prompt is empty: say what is asked for, or leave it out")

    @property
    def _texts(self) -> dict[str, ReadsTexts]:
        return {name: one for name, one in self.conditioners.items() if isinstance(one, ReadsTexts)}

    @property
    def reader(self) -> ReadsTexts | None:
        """What is told the texts; None where nothing is."""
        return next(iter(self._texts.values()), None)

    @cached_property
    def _held_out(self) -> Source:
        held_out = self.dataset.load("test")
        prepare(self.conditioners.values(), held_out)
        return held_out

    def __call__(self, numbers: Tensor) -> Condition | None:
        """What the samples of these numbers, int64 (N,), are asked for, where the numbers are.

        Raises:
            ValueError: for data that cannot be read, or have nothing of the kind.
        """
        if not self.conditioners:
            return None
        chosen = self._chosen(numbers)
        rest = {name: one for name, one in self.conditioners.items() if name not in chosen}
        found = chosen | self._own(rest, numbers)
        condition = Condition({name: found[name] for name in self.conditioners})
        negative = self._negative(numbers)
        if not negative:
            return condition
        return Condition(condition.entries, negative=Condition({**condition.absent().entries, **negative}))

    def _chosen(self, numbers: Tensor) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        if self.choice.labels:
            labels = torch.tensor(self.choice.labels, device=numbers.device)[numbers % len(self.choice.labels)]
            found["label"] = Condition.of(label=labels)["label"]
        if self.choice.prompts:
            texts = self._prompts_of(numbers)
            found |= {name: _on(one.of_texts(texts), numbers) for name, one in self._texts.items()}
        return found

    def _negative(self, numbers: Tensor) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        if self.choice.negative_label is not None:
            found["label"] = Condition.of(label=torch.full_like(numbers, self.choice.negative_label))["label"]
        if self.choice.negative_prompt is not None:
            texts = [self.choice.negative_prompt] * len(numbers)
            found |= {name: _on(one.of_texts(texts), numbers) for name, one in self._texts.items()}
        return found

    def _own(self, conditioners: Mapping[str, Conditioner], numbers: Tensor) -> dict[str, Entry]:
        """What is not chosen."""
        in_turn = {name: one for name, one in conditioners.items() if isinstance(one, InTurn)}
        if len(in_turn) == len(conditioners):
            return {name: one.in_turn(numbers) for name, one in in_turn.items()}
        if self.pictures is not None:
            given = Examples(self.pictures[numbers.cpu() % len(self.pictures)])
            entries = {name: one.in_turn(numbers) for name, one in in_turn.items()}
            read = {name: one.read(given) for name, one in conditioners.items() if name not in in_turn}
            return {**entries, **Condition(read).to(numbers.device).entries}
        condition = read_condition(conditioners, self._held_out.take(self._examples_of(numbers)))
        assert condition is not None
        return dict(condition.to(numbers.device).entries)

    def _prompts_of(self, numbers: Tensor) -> list[str]:
        return [self.choice.prompts[int(i) % len(self.choice.prompts)] for i in numbers.tolist()]

    def _examples_of(self, numbers: Tensor) -> Tensor:
        """The held-out examples that samples are asked for, int64 (N,) on the CPU."""
        if not len(self._held_out):
            raise ValueError(f"dataset={self.dataset.name} has no held-out examples to ask for")
        return numbers.cpu() % len(self._held_out)

    def labels(self, n: int) -> Tensor | None:
        """The labels int64 (n,) that the first n samples are asked for, on the CPU; None without any."""
        if "label" not in self.conditioners:
            return None
        found: list[Tensor] = []
        for numbers in torch.arange(n).split(_AT_A_TIME):
            condition = self(numbers)
            assert condition is not None
            found.append(condition["label"].value)
        return torch.cat(found)

    def classes(self, n: int) -> Tensor | None:
        """The classes int64 (n,) of what the first n samples are asked for, on the CPU; None where they are not known.

        That is the label of a sample that is told one, else that of the held-out example that its request is read from.
        A prompt has the class of the held-out examples with that caption, if there are any and all are of one class.
        """
        if "label" in self.conditioners:
            return self.labels(n)
        read = {name: one for name, one in self.conditioners.items() if not isinstance(one, InTurn)}
        if not read or not self.dataset.classes or self.pictures is not None:
            return None
        if not self.choice.prompts:
            return self._held_out.labels[self._examples_of(torch.arange(n))]
        if any(name not in self._texts for name in read):
            return None
        of_prompts = [self._class_of_caption.get(clean(prompt)) for prompt in self.choice.prompts]
        known = [label for label in of_prompts if label is not None]
        if len(known) < len(of_prompts):
            return None
        return torch.tensor(known)[torch.arange(n) % len(known)]

    @cached_property
    def _class_of_caption(self) -> dict[str, int | None]:
        """The class of all held-out examples with a caption; None where they are of several."""
        assert self.reader is not None
        held_out = in_memory(self._held_out, torch.device("cpu"))
        found: dict[str, int | None] = {}
        for text, label in zip(map(clean, self.reader.texts(held_out)), held_out.labels.tolist(), strict=True):
            found[text] = label if found.get(text, label) == label else None
        return found

    def texts(self, numbers: Tensor) -> list[str] | None:
        """The texts that samples are asked for, "" where there is none; None where nothing is told a text."""
        reader = self.reader
        if reader is None:
            return None
        if self.choice.prompts:
            return self._prompts_of(numbers)
        return [str(text) for text in reader.texts(self._held_out.take(self._examples_of(numbers)))]

    def listed(self, n: int) -> dict[str, Any]:
        """What the first n samples are asked for, as plain values: `label`, `text`, and for the rest the number of the
        held-out example that it is read from, `held_out`, or of the given picture, `picture`; each a list.
        """
        found: dict[str, Any] = {}
        labels = self.labels(n)
        if labels is not None:
            found["label"] = labels.tolist()
        if self._texts:
            parts = [self.texts(numbers) or [] for numbers in torch.arange(n).split(_AT_A_TIME)]
            found["text"] = [text for part in parts for text in part]
        chosen = {"label"} if self.choice.labels else set[str]()
        chosen |= set(self._texts) if self.choice.prompts else set[str]()
        rest = [one for name, one in self.conditioners.items() if name not in chosen]
        if not all(isinstance(one, InTurn) for one in rest):
            of = None if self.pictures is None else len(self.pictures)
            examples = self._examples_of(torch.arange(n)) if of is None else torch.arange(n) % of
            found["held_out" if of is None else "picture"] = examples.tolist()
        return found

    def write(self, n: int, path: Path) -> None:
        """Write `listed` as JSON, whole or not at all, where samples are asked for anything."""
        if self.conditioners:
            write_json(path, {"samples": n, **self.listed(n)})


def _on(entry: Entry, numbers: Tensor) -> Entry:
    return entry.map(lambda value: value.to(numbers.device))
