"""What a checkpoint says of its training, as nodes of a config: the schedule, the target, how the level is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

# A config's node: a constructor by its path (`_target_`), with its arguments.
Node: TypeAlias = dict[str, Any]

SCHEDULES = "diffsweep.diffusion.schedules"
TARGETS = "diffsweep.diffusion.target"
LEVELS = "diffsweep.interop.levels"
OUTPUTS = "diffsweep.diffusion.guidance"


@dataclass(frozen=True)
class SizeShift:
    """A shift of the straight path that grows with the number of tokens: `mu` of Flux (after arXiv 2403.03206, eq. 23).

    Attributes:
        base_length: Tokens at which the shift is `base_shift`.
        max_length: Tokens at which it is `max_shift`; in between and beyond it is a straight line.
        base_shift: Logarithm of the factor, if `exponential`; else the factor.
        max_shift: Likewise.
        exponential: Whether shifts are logarithms.
    """

    base_length: int
    max_length: int
    base_shift: float
    max_shift: float
    exponential: bool

    def factor(self, tokens: int) -> float:
        """By how much the noise of pictures of so many tokens is larger than on the path itself."""
        slope = (self.max_shift - self.base_shift) / (self.max_length - self.base_length)
        mu = self.base_shift + slope * (tokens - self.base_length)
        return math.exp(mu) if self.exponential else mu


@dataclass(frozen=True)
class Process:
    """The arguments of `denoising_network.DenoisingNetwork` but for the network, and what samplers should know.

    Attributes:
        schedule: Of the noise.
        target: What the network predicts.
        level: How it is told the level.
        scale: Of its input.
        sigma_data: For scale=data.
        output: What is done to each x0 while sampling.
        notes: What was understood, for people.
        shift: Of the schedule, by the size of pictures; None for none.
    """

    schedule: Node
    target: Node
    level: Node
    scale: str
    sigma_data: float
    output: Node
    notes: tuple[str, ...] = ()
    shift: SizeShift | None = None


def target(name: str, **arguments: Any) -> Node:
    """The node of a target of ours by the name of its class."""
    return {"_target_": f"{TARGETS}.{name}", **arguments}


def shifted(straight: Node, factor: float) -> Node:
    """The node of a straight path whose noise is larger by a factor."""
    return {"_target_": f"{SCHEDULES}.shifted.Shifted", "inner": straight, "size": factor, "base": 1.0}


def negative(of: Node) -> Node:
    """The node of a target's negative."""
    return {"_target_": "diffsweep.interop.targets.Negative", "target": of}
