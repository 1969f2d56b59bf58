"""Parameters of the sampler of least regret at a number of network calls: the resolver `${recommended:NAME,NFE}`.

They are data, `recommended.yaml`, made by benchmarks/sampler_regret.py. A resolved config has them as plain values.
"""

from __future__ import annotations

import functools
import math
from importlib import resources
from typing import Any

import yaml


@functools.cache
def parameters() -> dict[int, dict[str, Any]]:
    """Number of calls -> solver order, levels' a, b and shift, and what is known of them."""
    text = resources.files("diffsweep").joinpath("recommended.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["calls"]


def parameter(name: str, nfe: object) -> Any:
    """A parameter, by name, at the number of calls of the table that is nearest to ``nfe`` in ratio.

    An ``nfe`` that is no finite number above 0 is for the sampler to refuse; any row will do for it.
    """
    number = float(nfe) if isinstance(nfe, (int, float)) and 0 < nfe < math.inf else 20.0
    return parameters()[min(parameters(), key=lambda calls: abs(math.log(calls / number)))][name]
