"""Random numbers by a counter: the published bits, their distributions, and what they depend on."""

from __future__ import annotations

import math

import pytest
import torch

from diffsweep.philox import CounterGenerator, philox

# Of Random123's kat_vectors, "philox4x32 10": counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def counter(numbers: torch.Tensor, seed: int = 5, purpose: str = "test") -> CounterGenerator:
    return CounterGenerator(seed, purpose, numbers)


@pytest.mark.parametrize(("start", "key", "result"), KNOWN)
def test_the_generator_is_the_published_one(start: str, key: str, result: str) -> None:
    first, second = words(key)
    got = philox([torch.tensor([word]) for word in words(start)], (first, second))
    assert [int(word) for word in got] == words(result)


def test_normal_numbers_are_normal_and_independent() -> None:
    """Against the normal distribution itself; thresholds are four standard errors and more."""
    n, length = 2000, 98
    source = counter(torch.arange(n) + 2**33)
    z, after = source.randn((n, 2, 7, 7)).flatten(1), source.randn((n, 2, 7, 7)).flatten(1)
    count = n * length
    assert abs(float(z.mean())) < 4 / math.sqrt(count)
    assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float((z**4).mean()) - 3) < 4 * math.sqrt(96 / count)
    ordered = torch.special.ndtr(z.double().flatten().sort().values)
    assert float((ordered - (torch.arange(count) + 0.5) / count).abs().max()) < 1.95 / math.sqrt(count)
    for one, other in ((z[:, 1:], z[:, :-1]), (z[:, 2:], z[:, :-2]), (z[1:], z[:-1]), (z, after)):
        assert abs(float((one * other).mean())) < 4 / math.sqrt(one.numel())
        assert abs(float((one.square() * other.square()).mean()) - 1) < 4 * math.sqrt(8 / one.numel())


def test_uniform_numbers_are_uniform_and_below_one() -> None:
    u = counter(torch.arange(5000)).rand((5000, 3))
    assert u.shape == (5000, 3)
    assert 0 <= float(u.min()) < float(u.max()) < 1
    ordered = u.double().flatten().sort().values
    assert float((ordered - torch.linspace(0, 1, len(ordered))).abs().max()) < 1.95 / math.sqrt(len(ordered))


def test_an_element_draws_the_same_in_any_company() -> None:
    numbers = torch.tensor([7, 2**40, 0, 12])
    together, alone = counter(numbers), counter(numbers[1:2])
    for shape in ((4, 3, 5), (4,)):
        assert torch.equal(together.randn(shape)[1:2], alone.randn((1, *shape[1:])))
    assert torch.equal(together.rand((4, 2))[1:2], alone.rand((1, 2)))
    fresh = counter(numbers)
    first, second = fresh.randn((4, 30)), fresh.randn((4, 30))
    others = counter(numbers, seed=6).randn((4, 30)), counter(numbers, purpose="other").randn((4, 30)), second
    assert not any(bool((first == other).any()) for other in others)


def test_strata_are_a_permutation_that_devices_share() -> None:
    everything = torch.arange(40, 64)
    whole, count = CounterGenerator(1, "step", everything).strata(24)
    assert count == 24
    assert sorted(whole.tolist()) == list(range(24))
    assert whole.tolist() != list(range(24))
    for ranks in (2, 3):
        for rank in range(ranks):
            mine = slice(rank, None, ranks)
            share = CounterGenerator(1, "step", everything[mine], everything, mine)
            assert torch.equal(share.strata(24 // ranks)[0], whole[mine])
