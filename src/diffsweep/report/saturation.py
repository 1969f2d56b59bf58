"""What results say of saturated samples: values at an end of their range, where a sampler that went too far is cut off.

Distances of features may hardly notice it, so a cell of this kind is never ranked without a word.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffsweep.report.format import things
from diffsweep.sweep.store.result import Result

# Real images have values at the ends too: what is worth a word is this share of all values more than they have.
NOTABLE = 0.01


def is_saturated(result: Result) -> bool:
    """Whether notably more values of its samples than of the real data are at an end of their range."""
    share, real = result.saturated, result.reference_saturated
    return share is not None and real is not None and share - real > NOTABLE


def share_text(share: float | None) -> str:
    """A share in per cent, with a digit behind the point below 10 %; "-" if it is unknown."""
    if share is None:
        return "-"
    percent = 100 * share
    return f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"


def saturation_text(result: Result) -> str:
    """The share of a result's samples beside that of the real data, and what it means if that is notable."""
    careful = ": careful, they were cut off there" if is_saturated(result) else ""
    real = share_text(result.reference_saturated)
    return f"{share_text(result.saturated)} of values at an end of their range (real data: {real}){careful}"


def saturation_notes(results: Sequence[Result]) -> list[str]:
    """A line about those of the results whose samples are saturated; none if there are none."""
    found = [result for result in results if is_saturated(result)]
    if not found:
        return []
    most = max(found, key=lambda result: result.saturated or 0)
    return [
        f"saturated samples in {things(len(found), 'cell')}: up to {share_text(most.saturated)} of their values are at "
        f"an end of their range, of the real data {share_text(most.reference_saturated)}; look at the pictures before "
        "trusting their place"
    ]
