"""What a frozen language model makes of texts, computed once and kept by content:

    <cache>/text/<key>.safetensors    tokens (N, length, width), mask bool (N, length) of N texts in their order

The key is a hash of the encoder's content, the length and the texts, so the same captions in another dataset, or in
another order, are read from the same file. Whoever finds it needs no language model.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from diffsweep.conditioners.pipeline_text import PipelineTextEncoder
from diffsweep.conditioners.text_encoder import TextEncoder
from diffsweep.files import CannotWriteError, atomic
from diffsweep.messages import say
from diffsweep.sweep.store.alone import alone

# Of the file: raise it when the same texts would become other numbers.
_VERSION = 1
# Texts that are given to the encoder between two looks at the bar.
_AT_A_TIME = 512


class TextEmbeddings:
    """Tokens of texts, looked up by the text.

    Args:
        encoder: Reads what is not known yet.
        cache: Folder of what is kept.
    """

    def __init__(self, encoder: TextEncoder | PipelineTextEncoder, cache: Path) -> None:
        self.encoder = encoder
        self.folder = cache / "text"
        self._tables: list[tuple[Tensor, Tensor]] = []
        # Text -> number of the table, row in it.
        self._places: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def keep(self, texts: Iterable[str]) -> None:
        """Know all of these texts, from the file where it is there; else they are read, with a bar, and kept.

        Raises:
            ValueError: as `TextEncoder`.
        """
        wanted = sorted({clean(text) for text in texts})
        with self._lock:
            if any(text not in self._places for text in wanted):
                self._add(wanted, self._kept(wanted))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (N, length, width) and mask bool (N, length) of texts; errors as `TextEncoder`."""
        wanted = [clean(text) for text in texts]
        if any(text not in self._places for text in wanted):
            with self._lock:
                missing = sorted({text for text in wanted if text not in self._places})
                if missing:
                    self._add(missing, self.encoder(missing))
        places = torch.tensor([self._places[text] for text in wanted], dtype=torch.int64).view(-1, 2)
        tokens = torch.zeros(len(wanted), self.encoder.length, self.encoder.width, dtype=self.encoder.dtype)
        mask = torch.zeros(len(wanted), self.encoder.length, dtype=torch.bool)
        for number in places[:, 0].unique().tolist():
            here = places[:, 0] == number
            rows = places[here, 1]
            tokens[here], mask[here] = (one[rows] for one in self._tables[number])
        return tokens, mask

    def _add(self, texts: Sequence[str], table: tuple[Tensor, Tensor]) -> None:
        number = len(self._tables)
        self._tables.append(table)
        for row, text in enumerate(texts):
            self._places.setdefault(text, (number, row))

    def _kept(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoder = self.encoder
        kind = ["filled"] if encoder.filled else []
        identity = json.dumps([_VERSION, encoder.content, encoder.length, *kind, list(texts)])
        path = self.folder / f"{hashlib.sha256(identity.encode(errors='surrogatepass')).hexdigest()[:24]}.safetensors"
        shape = (len(texts), encoder.length, encoder.width)
        found = _read(path, shape, encoder.dtype)
        if found is not None:
            return found
        with alone(path.with_suffix(".lease"), "captions", "reads them"):
            # Whoever had to wait finds what the other has made.
            found = _read(path, shape, encoder.dtype)
            if found is None:
                found = self._computed(texts)
                try:
                    with atomic(path) as temporary:
                        save_file({"tokens": found[0], "mask": found[1]}, temporary)
                except CannotWriteError as error:
                    say(f"careful: {error}; what was read of the texts is used, and not kept")
        return found

    def _computed(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        parts: list[tuple[Tensor, Tensor]] = []
        with tqdm(desc="reading captions", total=len(texts), unit="text", disable=None, leave=False) as bar:
            for start in range(0, len(texts), _AT_A_TIME):
                parts.append(self.encoder(texts[start : start + _AT_A_TIME]))
                bar.update(len(parts[-1][0]))
        return torch.cat([tokens for tokens, _ in parts]), torch.cat([mask for _, mask in parts])


def clean(text: str) -> str:
    """A text as it is read: white space at its ends and of more than one character says nothing."""
    return " ".join(text.split())


def _read(path: Path, shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """What the file holds, mapped into memory; None if it is not there or not as it must be."""
    try:
        found = load_file(path)
        tokens, mask = found["tokens"], found["mask"]
    except (OSError, SafetensorError, KeyError):
        return None
    right = (tuple(tokens.shape), tuple(mask.shape)) == (shape, shape[:2])
    return (tokens, mask) if right and (tokens.dtype, mask.dtype) == (dtype, torch.bool) else None
