"""Random numbers by a counter: Philox 4x32-10, in torch's integer operations, the same bits on every device.

Philox (J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a function of a counter of 128 bits
and a key of 64 bits, so any number of a stream can be had without those before it. Here the key is a hash of (seed,
purpose), and the counter is (number of the element, which draw of that element, place in that draw): an element's
numbers depend on nothing else, whatever batch it is in and whichever device draws it. Torch has such a generator too
(`torch.func._random`), but it may change with any version, and what was drawn for a recorded result may not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffsweep.random_streams import stream_key

_LOW = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Sequence[Tensor], key: tuple[int, int], rounds: int = 10) -> Words:
    """Four random words for each counter.

    Args:
        counter: Its four words, int64 tensors of values in [0, 2^32) whose shapes broadcast.
        key: Its two words, in [0, 2^32).
        rounds: 10 for the published generator.

    Returns:
        int64 tensors of values in [0, 2^32).
    """
    a, b, c, d = counter
    first, second = key
    for _ in range(rounds):
        # Products wrap at 64 bits, of which all are kept: the upper word is the same, signed or not.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = ((right >> 32) & _LOW) ^ b ^ first, right & _LOW
        c, d = ((left >> 32) & _LOW) ^ d ^ second, left & _LOW
        first, second = (first + _WEYL[0]) & _LOW, (second + _WEYL[1]) & _LOW
    return a, b, c, d


def _words(numbers: Tensor, key: tuple[int, int], draw: int, count: int) -> Words:
    """Words (N, ceil(count / 4)) of the elements with these numbers, (N,)."""
    place = torch.arange(-(-count // 4), device=numbers.device)
    upper, lower = (numbers >> 32) & _LOW, numbers & _LOW
    return philox((place[None, :], torch.full_like(place, draw)[None, :], lower[:, None], upper[:, None]), key)


def _uniform(numbers: Tensor, key: tuple[int, int], draw: int, count: int) -> Tensor:
    words = _words(numbers, key, draw, count)
    # 24 bits: all that float32 holds exactly, so that 1 is never reached.
    parts = [(word >> 8).to(torch.float32) * 2.0**-24 for word in words]
    return torch.stack(parts, -1).flatten(1)[:, :count]


def _normal(numbers: Tensor, key: tuple[int, int], draw: int, count: int) -> Tensor:
    # Box and Muller (1958): two independent normal numbers of two uniform ones, the first in (0, 1].
    words = _words(numbers, key, draw, count)
    parts: list[Tensor] = []
    for length, angle in (words[:2], words[2:]):
        radius = ((length + 1).to(torch.float32) * 2.0**-32).log().mul(-2).sqrt()
        turn = (angle >> 8).to(torch.float32) * (2 * math.pi * 2.0**-24)
        parts += [radius * turn.cos(), radius * turn.sin()]
    return torch.stack(parts, -1).flatten(1)[:, :count]


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # One kernel instead of a hundred.
    return torch.compile(function, dynamic=True)


class CounterGenerator:
    """Draws for the elements of a batch, on their device.

    A draw counts up, so the same calls in the same order give the same numbers; element k's share of each depends on
    the seed, the purpose, ``numbers[k]``, and how many draws came before.

    Args:
        seed: Of the stream.
        purpose: Of the stream, as "step" or "image".
        numbers: Of the elements, int64 (N,), >= 0.
        among: All elements of which one permutation is made, int64 (M,), in the order that the ranks share; None if
            they are ``numbers``.
        mine: Where ``numbers`` lie in ``among``.
    """

    def __init__(
        self, seed: int, purpose: str, numbers: Tensor, among: Tensor | None = None, mine: slice = slice(None)
    ) -> None:
        key = stream_key(seed, purpose)
        self._key = (key & _LOW, key >> 32)
        self.numbers = numbers
        self._among = numbers if among is None else among
        self._mine = mine
        self._draws = 0

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return self.numbers.device

    def rand(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), float32, of shape (N, ...)."""
        return self._draw(_uniform, self.numbers, shape)

    def randn(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, float32, of shape (N, ...), at most 6.7 from 0."""
        return self._draw(_normal, self.numbers, shape)

    def strata(self, n: int) -> tuple[Tensor, int]:
        """Which stratum each element is in, int64 (N,), and how many there are, M: a permutation of all elements."""
        everything = self._draw(_uniform, self._among, (len(self._among),))
        order = everything.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        found = place[self._mine]
        assert len(found) == n
        return found, len(order)

    def _draw(self, function: Callable[..., Tensor], numbers: Tensor, shape: Sequence[int]) -> Tensor:
        assert shape[0] == len(numbers), "one row for each element"
        draw, count = self._draws, math.prod(shape[1:])
        self._draws += 1
        call = _compiled(function) if numbers.device.type == "cuda" else function
        return call(numbers, self._key, draw, count).reshape(tuple(shape))
