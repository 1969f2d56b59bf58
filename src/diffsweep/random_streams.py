"""Randomness by name and number: stream (seed, purpose), index i -> a generator that depends on nothing else.

A training step draws from (training seed, "step", step), image i of an evaluation from (sample seed, "image", i). So
a resumed training repeats what an uninterrupted one would have drawn, and image i starts from the same noise in every
cell, whatever the batch size or the number of devices. These generators are torch's and draw on the CPU;
`philox.CounterGenerator` draws on a device.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """A CPU generator for element ``index`` >= 0 of the stream (seed, purpose)."""
    # torch's CPU generator uses 32 bits of its seed: an offset keeps the elements of one stream distinct, a hash of
    # the index would let two of 50,000 images collide with odds of a quarter.
    return torch.Generator().manual_seed((stream_key(seed, purpose) + index) % 2**32)


def stream_key(seed: int, purpose: str) -> int:
    """64 bits that name the stream (seed, purpose)."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "big")
