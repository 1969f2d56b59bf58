"""What a sweep would do before it does it: its trainings and cells, what is done, and what the rest is likely to cost.

The cost is taken from what is recorded: seconds per training step of finished fits of the same backbone and dataset,
seconds per network call of finished cells of theirs. Where nothing alike was ever run, nothing is claimed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from rich.console import Console
from rich.text import Text

from diffsweep import messages
from diffsweep.report.format import duration
from diffsweep.report.live import Names
from diffsweep.sweep.plan.jobs import RemainingWork
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.query import results
from diffsweep.sweep.store.result import Result

_SHOWN = 20


def show_plan(plan: Plan, todo: RemainingWork, console: Console | None = None) -> None:
    """Print what is to be trained and evaluated, and how long it is likely to take, one job after another."""
    console = console or messages.console()
    known, names = Costs(results(plan.runs)), Names.of(plan)
    training = [known.training(plan, fit) for fit in todo.fits]
    evaluation = [known.evaluation(plan, cell) for cell in todo.cells]
    for index, (fit, seconds) in enumerate(zip(todo.fits, training, strict=True)):
        if index == _SHOWN:
            _line(console, f"  ... and {len(todo.fits) - _SHOWN} more trainings")
            break
        chosen = plan.run(plan.trainings[fit][0]).choices
        encoder = fit in plan.autoencoders
        groups = ("autoencoder", "dataset") if encoder else ("diffuser", "schedule", "backbone", "dataset")
        shown = " ".join(f"{group}={chosen.get(group)}" for group in groups)
        cost = f", about {duration(seconds)}" if seconds is not None else ""
        cells = sum(fit in (plan.cells[cell].fit, plan.cells[cell].autoencoder) for cell in todo.cells)
        # What tells it from the others: two learning rates have the same options.
        own = "" if names.fits[fit] == fit else f"  ({names.fits[fit]})"
        _line(console, f"  train {fit}  {shown}{own}  for {cells} cell{'' if cells == 1 else 's'}{cost}")
    for what, costs in (("training", training), ("evaluation", evaluation)):
        if costs:
            _line(console, _sum(what, costs))


class Costs:
    """What finished runs have cost, by what decides that."""

    def __init__(self, finished: Iterable[Result]) -> None:
        step, call = defaultdict(list), defaultdict(list)
        for result in finished:
            key = (result.option("backbone"), result.option("dataset"))
            if result.fit_steps and result.fit_seconds:
                step[key].append(result.fit_seconds / result.fit_steps)
            if result.nfe and result.samples and result.sample_seconds:
                call[key].append(result.sample_seconds / (result.nfe * result.samples))
        self._step = {key: median(values) for key, values in step.items()}
        self._call = {key: median(values) for key, values in call.items()}

    def training(self, plan: Plan, fit: str) -> float | None:
        """Seconds that a training is likely to take; None if nothing like it is recorded."""
        if fit in plan.autoencoders:
            return None
        cell = plan.fits[fit][0]
        each, steps = self._step.get(_key(plan, cell)), (plan.part(cell, "training") or {}).get("steps")
        return each * steps if each is not None and isinstance(steps, int) else None

    def evaluation(self, plan: Plan, cell: str) -> float | None:
        """Likewise for the samples of a cell."""
        each = self._call.get(_key(plan, cell))
        nfe, samples = (
            (plan.part(cell, "sampler") or {}).get("nfe"),
            (plan.part(cell, "evaluation") or {}).get("samples"),
        )
        return each * nfe * samples if each is not None and isinstance(nfe, int) and isinstance(samples, int) else None


def _key(plan: Plan, cell: str) -> tuple[str | None, str | None]:
    choices = plan.run(cell).choices
    return choices.get("backbone"), choices.get("dataset")


def _sum(what: str, costs: list[float | None]) -> str:
    known = [cost for cost in costs if cost is not None]
    if not known:
        return f"{what}: {len(costs)} to do; nothing alike has run here, so how long that takes is not known"
    total = sum(known)
    rest = f", and {len(costs) - len(known)} of unknown length" if len(known) < len(costs) else ""
    return (
        f"{what}: {len(costs)} to do, about {duration(total)} one after another ({total / 3600:.2f} device hours){rest}"
    )


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
