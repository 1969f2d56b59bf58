"""What a checkpoint says of its training, as nodes of a config: the schedule, the target, how the level is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

# A config's node: a constructor by its path (`_target_`), with its arguments.
Node: TypeAlias = dict[str, Any]

SCHEDULES = "diffsweep.diffusion.schedules"
TARGETS = "diffsweep.diffusion.target"
LEVELS = "diffsweep.interop.levels"
OUTPUTS = "diffsweep.diffusion.guidance"


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
    """

    schedule: Node
    target: Node
    level: Node
    scale: str
    sigma_data: float
    output: Node
    notes: tuple[str, ...] = ()


def target(name: str, **arguments: Any) -> Node:
    """The node of a target of ours by the name of its class."""
    return {"_target_": f"{TARGETS}.{name}", **arguments}


def negative(of: Node) -> Node:
    """The node of a target's negative."""
    return {"_target_": "diffsweep.interop.targets.Negative", "target": of}
