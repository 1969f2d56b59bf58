"""Videos and sounds that somebody else made, read as they are stored in the data that they are compared with."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from tqdm import tqdm

from diffsweep.data.collections.members import outcome, unreadable
from diffsweep.data.decoders import Decoder, SoundDecoder, VideoDecoder
from diffsweep.data.modality import VIDEOS, Modality
from diffsweep.evaluation.images import Images

# As many are read at a time.
_AT_A_TIME = 128


def read_clips(
    path: Path,
    modality: Modality,
    shape: tuple[int, ...],
    *,
    size: int | None = None,
    corrupt: str = "refuse",
    show: bool = True,
    leave_out: Collection[str] = (),
) -> Images:
    """The videos or sounds of a collection.

    Of videos the first frames are taken, as many as those of the real data have; sounds are brought to their sample
    rate, number of channels and length, and their loudness is left as it is.

    Args:
        path: of a folder or zip, see `data.collections.clips`.
        modality: that of the real data.
        shape: of one of these, as stored.
        size: height and width that frames are brought to: the shorter side, then the centre.
        corrupt: what becomes of files that cannot be read: `refuse`, or `skip` to leave them out and count them.
        show: whether to draw a bar when standard error is a terminal.
        leave_out: names of files that are none of them.

    Raises:
        ValueError: in one line, for what is no such collection, or cannot be read.
        OSError: for what may not be read.
    """
    decoder = _decoder(modality, shape, size)
    found = decoder.find(path)
    found = found.take([place for place, name in enumerate(found.names) if name not in leave_out])
    values: list[np.ndarray] = []
    broken: dict[int, str] = {}
    bar = tqdm(desc=decoder.noun, total=len(found), disable=None if show else True, leave=False)
    with bar, ThreadPoolExecutor(min(16, cpu_count() or 1)) as threads:
        for start in range(0, len(found), _AT_A_TIME):
            places = range(start, min(start + _AT_A_TIME, len(found)))
            read = threads.map(partial(outcome, use=decoder.decode), map(found.__getitem__, places))
            for place, one in zip(places, read, strict=True):
                bar.update()
                if isinstance(one, str):
                    broken[place] = one
                elif values and one.values.shape != values[0].shape:
                    sizes = " and ".join(decoder.size_of(some.shape) for some in (values[0], one.values))
                    raise ValueError(
                        f"{path} holds {decoder.noun} of different sizes, as {sizes} ({found.names[place]}): "
                        "--size N brings them to N x N"
                    )
                else:
                    values.append(one.values)
    if broken and (corrupt == "refuse" or not values):
        raise unreadable(found, broken, f"{decoder.noun} in {path}", "--corrupt skip leaves them out")
    return Images(torch.from_numpy(np.stack(values)), len(broken), resize="none" if size is None else f"{size}x{size}")


def _decoder(modality: Modality, shape: tuple[int, ...], size: int | None) -> Decoder:
    if modality == VIDEOS:
        return VideoDecoder(size, shape[1], channels=cast("Literal[1, 3, 4]", shape[0]))
    assert modality.sample_rate is not None
    return SoundDecoder(modality.sample_rate, shape[1], cast("Literal[1, 2]", shape[0]), normalize="none")
