"""Latents of a dataset on the disk: written once as shards that are mapped into memory, with their statistics.

    latents/shard-00000.npy ...   float32 (n, C, H, W), as the encoder gives them
    latents/index.json            written last: number, shape, statistics, and which images they are of

A shard appears whole or not at all, so whoever comes after a kill goes on with the first that is missing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from diffsweep.autoencoders.autoencoder import Latents
from diffsweep.autoencoders.latent_space import LatentSpace, Scale
from diffsweep.data.examples import Examples
from diffsweep.data.source import Source
from diffsweep.files import atomic, make_folder, read_json, write_json

# Bytes of a shard, about.
_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class LatentShards:
    """The shards of one split.

    Attributes:
        folder: `latents` in the folder of the autoencoder.
        scale: Of all latents; that of the weights where they come with one.
        shape: Of one latent.
        counts: How many are in each shard.
        digest: Of the images.
    """

    folder: Path
    scale: Scale
    shape: tuple[int, ...]
    counts: tuple[int, ...]
    digest: str

    @classmethod
    def read(cls, folder: Path) -> LatentShards | None:
        """What `write` has written; None if that is not there, or not all of it."""
        content = read_json(folder / "index.json")
        if content is None:
            return None
        try:
            shards = cls(
                folder,
                Scale(torch.tensor(content["mean"]), torch.tensor(content["std"])),
                tuple(content["shape"]),
                tuple(content["counts"]),
                content["digest"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'index.json'} describes no latents ({error!r}): move it away") from error
        return shards if all(_path(folder, number).is_file() for number in range(len(shards.counts))) else None

    @classmethod
    def write(
        cls, folder: Path, space: LatentSpace, source: Source, device: torch.device, advance: Callable[[int], object]
    ) -> LatentShards:
        """Encode all images of a source; shards that are there already are kept.

        Args:
            folder: Where; nobody else writes there.
            space: Whose autoencoder encodes them.
            source: The images.
            device: Where they are encoded.
            advance: Told how many more are done.
        """
        make_folder(folder)
        shape = space.autoencoder.latent_shape
        size = max(1, _BYTES // (4 * math.prod(shape)))
        counts: list[int] = []
        total, squares, number = (
            torch.zeros(shape[0], dtype=torch.float64),
            torch.zeros(shape[0], dtype=torch.float64),
            0,
        )
        for shard, numbers in enumerate(torch.arange(len(source)).split(size)):
            path = _path(folder, shard)
            found = _whole(path, (len(numbers), *shape))
            if found is None:
                parts: list[Tensor] = []
                for some in numbers.split(space.batch_size):
                    parts.append(space.latents(source.take(some).x.to(device)).value.float().cpu())
                    advance(len(some))
                with atomic(path) as temporary, temporary.open("wb") as stream:
                    np.save(stream, torch.cat(parts).contiguous().numpy())
                # As whoever comes after a kill reads it: sums of another layout differ in their last digits.
                found = _whole(path, (len(numbers), *shape))
                assert found is not None
            else:
                advance(len(numbers))
            values = found.double()
            total += values.sum(dim=(0, 2, 3))
            squares += values.square().sum(dim=(0, 2, 3))
            number += len(values) * math.prod(shape[1:])
            counts.append(len(numbers))
        mean = total / number
        std = (squares / number - mean.square()).clamp(min=1e-12).sqrt()
        given = space.autoencoder.given_scale
        scale = Scale(mean.float(), std.float()) if given is None else given
        digest = source.digest()
        write_json(
            folder / "index.json",
            {
                "shape": list(shape),
                "counts": counts,
                "mean": scale.mean.tolist(),
                "std": scale.std.tolist(),
                "measured_mean": mean.tolist(),
                "measured_std": std.tolist(),
                "digest": digest,
            },
        )
        return cls(folder, scale, tuple(shape), tuple(counts), digest)


@final
class LatentSource:
    """A split in normalised latents, which are read from the disk: a `Source`.

    Args:
        shards: of the split.
        images: the same split as it is stored, for labels and what else is known of each example.

    Raises:
        ValueError: if the images are others than those that were encoded.
    """

    def __init__(self, shards: LatentShards, images: Source) -> None:
        if shards.digest != images.digest() or sum(shards.counts) != len(images):
            raise ValueError(f"{shards.folder} has latents of other images than those that are there now")
        self._shards, self._images = shards, images
        # Writing changes no file: torch wants arrays that may be written.
        self._values = [
            torch.from_numpy(np.load(_path(shards.folder, number), mmap_mode="c"))
            for number in range(len(shards.counts))
        ]
        some = images.take(torch.zeros(min(1, len(images)), dtype=torch.int64))
        self._labelled = "label" in some.entries
        self._more = bool(some.entries.keys() - {"label"})

    def __len__(self) -> int:
        return len(self._images)

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return self._images.labels

    def take(self, numbers: Tensor) -> Examples:
        """float32 (M, C, H, W) of about unit variance; see `Source.take`."""
        size = self._shards.counts[0] if self._shards.counts else 1
        here = numbers.cpu()
        x = torch.empty(len(here), *self._shards.shape)
        for shard in (here // size).unique().tolist():
            mine = here // size == shard
            x[mine] = self._values[shard][here[mine] - shard * size]
        x = self._shards.scale.normalise(Latents(x))
        if self._more:
            return self._images.take(here).with_x(x)
        return Examples(x, self.labels[here.to(self.labels.device)] if self._labelled else None)

    def digest(self) -> str:
        """Of the images and of what they were scaled by."""
        scale = [self._shards.scale.mean.tolist(), self._shards.scale.std.tolist()]
        return hashlib.sha256(json.dumps([self._images.digest(), scale]).encode()).hexdigest()


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _whole(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """What a shard holds; None if it is not there, or holds something else."""
    with suppress(OSError, ValueError):
        found: Any = np.load(path, mmap_mode="c", allow_pickle=False)
        if found.shape == shape and found.dtype == np.float32:
            return torch.from_numpy(found)
    return None
