"""What a single run is checked for, for every cell of a sweep, before anything is started.

Whatever is checked depends on few parts of a config at a time, so not every cell is built: only one of each combination
of parts that are checked together. That happens in a process of its own, for the launcher does without torch.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from diffsweep.messages import say
from diffsweep.mistakes import one_line
from diffsweep.sweep.plan.folders import refuse_impossible_folders
from diffsweep.sweep.plan.plan import Plan

# Parts of a config that are checked against each other; every part is checked alone, too.
_TOGETHER = (
    ("dataset", "schedule", "diffuser", "backbone", "optimizer"),
    ("sampler", "schedule"),
    ("validation", "schedule", "dataset"),
    ("guidance", "sampler", "schedule"),
    ("guidance", "training", "dataset", "diffuser", "backbone", "condition"),
    ("evaluation", "dataset", "diffuser", "backbone"),
    ("trainer", "training"),
    ("weights", "training", "validation"),
    ("autoencoder", "dataset", "backbone", "training"),
)
# Building one takes some 50 ms: whoever waits for many is told.
_MANY = 100


def refuse_impossible(plan: Plan, cells: Sequence[str], *, devices: bool) -> None:
    """Raise ValueError, in one line that names its overrides, for one of `cells` that a single run would refuse.

    `devices`: whether the jobs run on this machine, so that its devices are what they have.
    """
    for cell in cells:
        try:
            refuse_impossible_folders(plan.part(cell, "paths") or {})
            _refuse_part(plan.part(cell, "stage"))
        except ValueError as error:
            raise ValueError(_about(plan, cell, str(error))) from error
    wanted = _representatives(plan, cells)
    if len(wanted) > _MANY:
        say(f"checking {len(wanted)} combinations")
    found = _first_refused(plan, wanted, devices=devices) if wanted else None
    if found is not None:
        raise ValueError(_about(plan, *found))


def _refuse_part(stage: object) -> None:
    """A sweep is about its cells: how far a run goes is a choice of single runs."""
    if stage not in (None, "cell"):
        raise ValueError(f"stage={stage} is how far a single run goes, and a sweep goes to its cells: leave it out")


def _representatives(plan: Plan, cells: Sequence[str]) -> list[str]:
    """Cells that together have every combination of parts that is checked, but for those that wait for another fit."""
    seen: set[tuple[str | None, ...]] = set()
    chosen = []
    for cell in cells:
        task = plan.cells[cell]
        if any(not plan.run(plan.fits[fit][0]).fit.done for fit in plan.needs[task.fit]):
            continue
        combinations = {(key, digest) for key, digest in task.config.items()}
        combinations |= {(*keys, *(task.config.get(key) for key in keys)) for keys in _TOGETHER}
        if not combinations <= seen:
            seen |= combinations
            chosen.append(cell)
    return chosen


def _first_refused(plan: Plan, cells: Sequence[str], *, devices: bool) -> tuple[str, str] | None:
    """The first of the cells that cannot be built, and why: a fork tells, which imports torch and the user's code."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            for found in _refused(plan, cells, devices=devices):
                with os.fdopen(writing, "w") as out:
                    out.write(json.dumps(found))
                break
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.waitpid(pid, 0)
    # A process that died has said nothing: the jobs will tell.
    return tuple(json.loads(text)) if text else None


def _refused(plan: Plan, cells: Sequence[str], *, devices: bool) -> Iterator[tuple[str, str]]:
    # The threads of a process that has used torch before are not there in its fork.
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from omegaconf import OmegaConf

    from diffsweep.runs.stages import build

    torch.set_num_threads(1)
    for cell in cells:
        cfg: Any = OmegaConf.create(plan.config(cell))
        if OmegaConf.is_dict(cfg.get("trainer")):
            cfg.trainer.threads = 1 if isinstance(cfg.trainer.get("threads"), int) else cfg.trainer.get("threads")
            if not devices:
                cfg.trainer.update(accelerator="cpu", devices=1, num_nodes=1, strategy="auto")
        try:
            build(cfg)
        except Exception as error:
            yield cell, one_line(error)


def _about(plan: Plan, cell: str, reason: str) -> str:
    """A reason with the overrides in front by which a cell differs from others, unless it names them itself."""
    counts = Counter(word for task in plan.tasks for word in set(task.overrides))
    overrides = plan.cells[cell].overrides
    own = [word for word in overrides if counts[word] < len(plan.tasks)]
    named = all(word in reason for word in own) if own else any(word in reason for word in overrides)
    return reason if named else f"{' '.join(own or overrides)}: {reason}"
