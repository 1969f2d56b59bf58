"""The weights of a finished fit, read from its folder: its averaged ones, or those that a choice of them names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffsweep.diffusion import Denoiser
from diffsweep.messages import say
from diffsweep.mistakes import BadValue, whole
from diffsweep.scoring.power_average import PowerAverage, coefficients
from diffsweep.settings import relative_std
from diffsweep.sweep.store.record import Fit

# An average that is farther from the one that is wanted is warned of.
FAR = 0.1


@dataclass(frozen=True)
class WeightsChoice:
    """Which weights of a training are used: the averages and steps that it kept allow any.

    Attributes:
        ema: Relative standard deviation of a power-function average, made of those that were kept; None for the
            average that the training itself made (`ema.decay`).
        step: Of which step: a number that was kept, the last, or the best of the validation; None for the one that
            the training chose.

    Raises:
        ValueError: for a value that no training can have kept.
    """

    ema: float | None = None
    step: int | Literal["last", "best"] | None = None

    def __post_init__(self) -> None:
        if self.ema is not None:
            relative_std("ema", self.ema)
        if self.step is not None and self.step not in ("last", "best"):
            whole("step", self.step, 1)

    def check(self, averages: Sequence[float] | None, kept: Sequence[int], steps: int, *, best: bool) -> None:
        """Refuse a choice that a training will not have kept.

        Args:
            averages: Relative standard deviations of those that it keeps.
            kept: Steps that it keeps.
            steps: Its length.
            best: Whether it knows and keeps a best step.
        """
        if self.ema is not None and not averages:
            raise BadValue(
                "ema", self.ema, "is made of averages that a training keeps: set training.averages=[0.05,0.1] for it"
            )
        if self.step == "best" and not best:
            raise BadValue("step", self.step, "needs a training that keeps its best step: choose validation=best")
        if isinstance(self.step, int) and self.step not in (*kept, steps):
            named = f"training.keep=[{','.join(map(str, sorted({*kept, self.step})))}]"
            raise BadValue("step", self.step, f"is no step that the training keeps: set {named}, or choose last")

    def resolved_step(self, trained: dict[str, Any]) -> int:
        """The number of the step, of a training that told `trained`."""
        chosen = trained["best_step"] if trained.get("kept") == "best" else trained["steps"]
        if self.step is None or self.step == "best":
            return chosen
        return trained["steps"] if self.step == "last" else self.step


def step_file(step: int) -> str:
    """The name of the file of a training's own average at a step, in the folder of checkpoints."""
    return f"average-{step}.safetensors"


def load_weights(denoiser: Denoiser, fitted: Fit, choice: WeightsChoice | None = None) -> None:
    """Put averaged weights of a finished fit into a denoiser.

    Raises:
        ValueError: if a file cannot be read or holds other weights, or if the fit did not keep what is chosen.
    """
    choice, trained = choice or WeightsChoice(), fitted.result() or {}
    if choice == WeightsChoice():
        _put(denoiser, _read(fitted, "ema.safetensors"), fitted)
        return
    step = choice.resolved_step(trained)
    if choice.ema is None:
        own = step == WeightsChoice().resolved_step(trained)
        _put(denoiser, _read(fitted, "ema.safetensors" if own else step_file(step)), fitted)
        return
    _put(denoiser, _combined(fitted, PowerAverage(choice.ema, step)), fitted)


def _combined(fitted: Fit, wanted: PowerAverage) -> dict[str, Tensor]:
    found = [PowerAverage.of_file(path.name) for path in fitted.checkpoints.glob("power-*.safetensors")]
    kept = sorted(one for one in found if one is not None)
    if wanted not in kept and any(one.step == wanted.step for one in kept):
        # Later weights than those of the step have no part in an average that ends there.
        kept = [one for one in kept if one.step <= wanted.step]
    if not kept:
        raise ValueError(
            f"fit {fitted.signature} kept no averages for weights.ema={wanted.std:g}: set training.averages=[0.05,0.1]"
        )
    counts, distance = coefficients(kept, wanted)
    if distance > FAR:
        say(
            f"careful: weights.ema={wanted.std:g} is made of {len(kept)} averages that were kept, to {distance:.0%} of "
            "its shares: set a larger training.snapshots, or choose a longer average"
        )
    total: dict[str, Tensor] = {}
    for one, count in zip(kept, counts, strict=True):
        for name, value in _read(fitted, one.file).items() if count else ():
            if not value.is_floating_point():
                total[name] = value
                continue
            # In double precision: the counts are of both signs and larger than their sum.
            part = value.double() * count
            total[name] = part if name not in total else total[name].add_(part)
    like = _read(fitted, kept[-1].file)
    return {name: value.to(like[name].dtype) for name, value in total.items()}


def _read(fitted: Fit, name: str) -> dict[str, Tensor]:
    path: Path = fitted.checkpoints / name
    try:
        return load_file(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise _damaged(path, fitted, error) from error


def _put(denoiser: Denoiser, weights: dict[str, Tensor], fitted: Fit) -> None:
    try:
        with torch.no_grad():
            denoiser.backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise _damaged(fitted.checkpoints / "ema.safetensors", fitted, error) from error


def _damaged(path: Path, fitted: Fit, error: Exception) -> ValueError:
    line = str(error).splitlines()[0]
    return ValueError(f"{path} is damaged ({line}): move {fitted.folder} away to train again")
