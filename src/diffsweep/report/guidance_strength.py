"""What results say of how strong their guidance is: kinds of guidance are compared fairly at equal strength only.

The strength is how far guidance moves samples, see `scoring.guidance_strength`; the same scale means another strength
in another kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffsweep.sweep.store.result import Result

# Strengths that differ by a smaller factor are equal.
_EQUAL = 1.1


def strength_text(result: Result) -> str:
    """The strength of a result's guidance with two digits; "" without guidance."""
    strength = result.guidance_strength
    return "" if strength is None else f"{strength:#.2g}"


def strength_notes(results: Sequence[Result]) -> list[str]:
    """A line for each kind of guidance that was only tried weaker, or only stronger, than the one that won.

    Args:
        results: Of one protocol, best first.
    """
    best = next((result for result in results if not result.lost), None)
    if best is None or not best.guidance_strength:
        return []
    own = best.guidance_strength
    tried: dict[str, list[float]] = {}
    for result in results:
        if result.guidance_strength is not None and result.option("guidance") != best.option("guidance"):
            tried.setdefault(str(result.option("guidance")), []).append(result.guidance_strength)
    notes = []
    for kind, strengths in tried.items():
        weak = max(strengths) * _EQUAL < own
        if weak or min(strengths) > own * _EQUAL:
            reach = f"up to {max(strengths):#.2g}" if weak else f"from {min(strengths):#.2g}"
            change = "larger" if weak else "smaller"
            notes.append(
                f"guidance={best.option('guidance')} is first at strength {own:#.2g}, and guidance={kind} was tried "
                f"{reach} only: it may be behind for no other reason; sweep a {change} scale of it"
            )
    return notes
