"""How fresh noise enters a sampling: as an itinerary of legs between the levels of a spacing.

A leg aims from t at s and lands at u, at or below s; where the next leg starts higher than the last one landed, the
forward process takes the state up with fresh noise. Every stochastic sampler is a choice of legs:

    (t, s, s)                        no noise: the probability flow
    (t, s, u), then up to s          the reverse SDE, DDPM and ancestral sampling; u = 0 is consistency sampling
    up to t', then (t', s, s)        EDM's churn
    (t, s, s) ... up again, and on   restarts, RePaint's resampling
    (t, s, s), (s, u, u), up to s    Langevin correction
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from diffsweep.diffusion.level import Level
from diffsweep.mistakes import BadValue, whole


@dataclass(frozen=True)
class Leg:
    """One aim and one move.

    Attributes:
        t: Level at which it starts.
        s: Level for which the solver aims.
        u: Level at which it lands, not noisier than s.
        boost: Standard deviation of the fresh noise that takes the state up to t; 1 is the forward process.
    """

    t: Level
    s: Level
    u: Level
    boost: float = 1.0


class Noise(Protocol):
    """Where fresh noise comes in."""

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        """The legs over these levels, noisiest first and the last one clean; the last leg must land there.

        Where a leg starts at another level than the one at which the last leg landed, fresh noise leads there.
        """
        ...

    def count(self, steps: int) -> int:
        """The number of legs over ``steps + 1`` levels."""
        ...


@dataclass(frozen=True)
class SDE:
    """The reverse SDE (Score-Based Generative Modeling, arXiv 2011.13456) with eta times its noise.

    A leg lands at ``noise_u = noise_s (noise_s / noise_t)^eta``: the exact solution for a constant x0, as in the SDE
    forms of DPM-Solver++ (arXiv 2211.01095). Eta 0 is the probability flow, 1 with Euler is exactly DDPM's posterior.

    Args:
        eta: Amount of noise, >= 0.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise BadValue("eta", self.eta, "must be 0 (no fresh noise) or more (1 is the reverse SDE), and finite")

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        return [Leg(t, s, self._landing(t, s)) for t, s in itertools.pairwise(levels)]

    def count(self, steps: int) -> int:
        return steps

    def _landing(self, t: Level, s: Level) -> Level:
        if self.eta == 0 or s.sigma == 0:
            return s
        return s.at(s.noise * (s.noise / t.noise) ** self.eta)


@dataclass(frozen=True)
class Anew:
    """Denoise fully and noise again (Consistency Models, arXiv 2303.01469, algorithm 1): the SDE with infinite eta."""

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        return [Leg(t, s, s.at(0.0) if s.sigma else s) for t, s in itertools.pairwise(levels)]

    def count(self, steps: int) -> int:
        return steps


@dataclass(frozen=True)
class Ancestral:
    """DDIM's family (arXiv 2010.02502, eq. 16): eta times the standard deviation of DDPM's posterior.

    The solver takes its step to ``noise_u = noise_s sqrt(1 - eta^2 (1 - noise_s^2 / noise_t^2))`` and fresh noise
    leads back up to s. Eta 0 is the probability flow, 1 is DDPM with Euler.

    Args:
        eta: Share of the posterior's noise, in [0, 1].
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise BadValue("eta", self.eta, "must lie between 0 (no fresh noise) and 1 (DDPM's)")

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        landings = (self._landing(t, s) for t, s in itertools.pairwise(levels))
        return [Leg(t, u, u) for t, u in zip(levels, landings, strict=False)]

    def count(self, steps: int) -> int:
        return steps

    def _landing(self, t: Level, s: Level) -> Level:
        if self.eta == 0 or s.sigma == 0:
            return s
        return s.at(s.noise * (1 - self.eta**2 * (1 - (s.noise / t.noise) ** 2)) ** 0.5)


@dataclass(frozen=True)
class Churn:
    """EDM's churn (arXiv 2206.00364, algorithm 2): before a step, noise is raised by a factor 1 + gamma.

    Args:
        amount: S_churn, >= 0: gamma is amount / steps, at most sqrt(2) - 1.
        noise_min: Lowest noise sigma / alpha at which it acts.
        noise_max: Highest one.
        boost: S_noise, the standard deviation of the fresh noise: a little over 1 makes up for a network's
            shrinkage, 1 is exact.
    """

    amount: float = 40.0
    noise_min: float = 0.05
    noise_max: float = 50.0
    boost: float = 1.0

    def __post_init__(self) -> None:
        if not self.amount >= 0:
            raise BadValue("amount", self.amount, "must be 0 or more")
        if not 0 <= self.noise_min <= self.noise_max:
            raise BadValue("noise_min", self.noise_min, f"must be 0 or more, and at most noise_max={self.noise_max}")
        if not self.boost > 0:
            raise BadValue("boost", self.boost, "must be above 0; 1 is exact")

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        gamma = min(self.amount / (len(levels) - 1), math.sqrt(2) - 1)
        starts = [t.at(t.noise * (1 + gamma)) if gamma and self._acts(t) else t for t in levels[:-1]]
        return [Leg(t, s, s, self.boost) for t, s in zip(starts, levels[1:], strict=True)]

    def count(self, steps: int) -> int:
        return steps

    def _acts(self, t: Level) -> bool:
        return self.noise_min <= t.noise <= self.noise_max and t.alpha > 0


@dataclass(frozen=True)
class Restart:
    """Restart sampling (arXiv 2306.14878): once near the data, climb back and come down again.

    After the first level with noise at most ``noise_min`` (or the last before clean data), the state is noised to
    ``noise_max`` and integrated down again in ``steps`` steps that are uniform in noise^(1/7), ``repeats`` times.

    Args:
        noise_min: Noise sigma / alpha from which it climbs.
        noise_max: Noise to which it climbs, cut to that of the first level.
        steps: Steps of each descent, >= 1.
        repeats: Number of climbs, >= 1.
    """

    noise_min: float = 0.06
    noise_max: float = 0.3
    steps: int = 3
    repeats: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.noise_min < self.noise_max:
            raise BadValue("noise_min", self.noise_min, f"must be above 0 and below noise_max={self.noise_max}")
        for key, value in (("steps", self.steps), ("repeats", self.repeats)):
            whole(key, value, 1)

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        legs = [Leg(t, s, s) for t, s in itertools.pairwise(levels)]
        if len(legs) == 1:
            return legs
        inner = range(1, len(levels) - 1)
        where = next((i for i in inner if levels[i].noise <= self.noise_min), len(levels) - 2)
        low = levels[where]
        # Coarse steps may leave the last level above the whole interval: then it is moved there.
        top = self.noise_max if low.noise < self.noise_max else low.noise * self.noise_max / self.noise_min
        high, end = min(top, levels[0].noise) ** (1 / 7), low.noise ** (1 / 7)
        descent = [low.at((high + i / self.steps * (end - high)) ** 7) for i in range(self.steps)]
        again = [Leg(t, s, s) for t, s in itertools.pairwise([*descent, low])]
        return legs[:where] + again * self.repeats + legs[where:]

    def count(self, steps: int) -> int:
        return steps + self.repeats * self.steps if steps > 1 else steps


@dataclass(frozen=True)
class Langevin:
    """Predictor-corrector sampling (arXiv 2011.13456, algorithms 4 and 5): Langevin steps after each predictor step.

    A Langevin step of size e = 2 (snr n)^2 at noise n is a move down to n (1 - 2 snr^2) and noise back up to n: the
    drift is n (n - u) times the score, the noise's variance n^2 - u^2. The norms of score and noise, which the paper
    takes from the batch, are their expectations here, so that no sample depends on its neighbours.

    Args:
        snr: Signal-to-noise ratio of a step, in (0, 0.7).
        repeats: Langevin steps at each level, >= 1.
    """

    snr: float = 0.16
    repeats: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.snr < 0.7:
            raise BadValue("snr", self.snr, "must be above 0 and below 0.7")
        whole("repeats", self.repeats, 1)

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        legs: list[Leg] = []
        for t, s in itertools.pairwise(levels):
            legs.append(Leg(t, s, s))
            if s.sigma:
                u = s.at(s.noise * (1 - 2 * self.snr**2))
                legs += [Leg(s, u, u)] * self.repeats
        return legs

    def count(self, steps: int) -> int:
        return steps + (steps - 1) * self.repeats


@dataclass(frozen=True)
class Resample:
    """RePaint's resampling (arXiv 2201.09865, section 4.2): every few ancestral steps, go back up and repeat them.

    Args:
        jump: Steps that are repeated at a time, >= 1.
        repeats: How often each is taken in all, >= 1.
    """

    jump: int = 10
    repeats: int = 10

    def __post_init__(self) -> None:
        for key, value in (("jump", self.jump), ("repeats", self.repeats)):
            whole(key, value, 1)

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        legs = Ancestral().legs(levels)
        # The step to clean data is final: there is no way back up from exactly clean data at the same place.
        blocks = [legs[i : i + self.jump] for i in range(0, len(legs) - 1, self.jump)]
        blocks = [block[: len(legs) - 1 - i * self.jump] for i, block in enumerate(blocks)]
        return [leg for block in blocks for leg in block * self.repeats] + legs[-1:]

    def count(self, steps: int) -> int:
        return (steps - 1) * self.repeats + 1
