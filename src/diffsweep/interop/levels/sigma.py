"""The noise in units of the data, sigma / alpha, or a function of it: EDM's and k-diffusion's convention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import one_of

# Of the logarithm of the noise.
_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": torch.exp,
    "log": lambda log: log,
    "quarter_log": lambda log: log / 4,
    "angle": lambda log: torch.atan(torch.exp(log)) * (2 / math.pi),
}


@dataclass(frozen=True)
class Sigma:
    """The noise n = sigma / alpha (EDM, arXiv 2206.00364, table 1: c_noise).

    Args:
        form: What the network takes: noise (n itself), log (ln n), quarter_log (ln(n) / 4, EDM's), angle
            (2 atan(n) / pi, between 0 and 1).

    Raises:
        ValueError: for another form.
    """

    form: Literal["noise", "log", "quarter_log", "angle"] = "quarter_log"

    def __post_init__(self) -> None:
        one_of("form", self.form, _FORMS)

    def __call__(self, logsnr: Tensor, schedule: Schedule) -> Tensor:
        return _FORMS[self.form](-logsnr / 2)
