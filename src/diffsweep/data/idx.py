"""The idx format of MNIST and its kin: 0, 0, type, rank, big-endian sizes, bytes; gzipped where the name ends in .gz.

Source: Y. LeCun, C. Cortes, "The MNIST database", section "File formats". Only type 8 (unsigned byte) is read.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """An idx file, gzipped if its name ends in .gz, as a uint8 tensor of exactly `shape`.

    Raises:
        ValueError: in one line, naming the file and what is wrong: empty, not gzip, truncated, another magic number,
            another shape, too few or too many bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        size = path.stat().st_size if path.exists() else 0
        raise ValueError(f"{path} is not a whole gzip file ({size} bytes on disk): {error}") from None
    rank = len(shape)
    header = 4 + 4 * rank
    if len(content) < header:
        raise ValueError(f"{path} holds {len(content)} bytes, fewer than the {header} of an idx header")
    magic, *found = struct.unpack(f">{rank + 1}I", content[:header])
    if magic != 0x0800 + rank:
        raise ValueError(f"{path} has the magic number {magic}, not {0x0800 + rank} (unsigned bytes of rank {rank})")
    if tuple(found) != shape:
        raise ValueError(f"{path} holds the shape {tuple(found)}, not {shape}")
    if len(content) - header != math.prod(shape):
        raise ValueError(f"{path} holds {len(content) - header} values, not the {math.prod(shape)} of its header")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)
