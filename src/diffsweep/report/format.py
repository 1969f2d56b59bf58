"""Numbers, times and lists as people read them: as many digits as mean something, units, thousands set apart."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: object) -> str:
    """`value` to 4 significant digits, without exponent between 0.0001 and a million; "-" for null."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3e}"
    rounded = float(f"{value:.4g}")
    digits = 3 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:.{max(0, digits)}f}"


def with_error(value: object, half: float | None, sign: str = "+-") -> str:
    """A value and half the width of its interval to two significant digits, as `0.380 +- 0.012`.

    The value alone, as `number` has it, where there is no interval or one without width.
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value) or half is None or not math.isfinite(half):
        return number(value)
    # Rounding alone is no error: what is the same without any block has none.
    if half <= 1e-7 * abs(value):
        return number(value)
    error = float(f"{half:.1e}")
    places, largest = 1 - math.floor(math.log10(error)), max(abs(value), error)
    if not 1e-4 <= largest < 1e6:
        digits = max(0, math.floor(math.log10(largest)) + places)
        return f"{value:.{digits}e} {sign} {error:.1e}"
    # Adding 0 makes -0.0 what it looks like to people.
    return f"{round(value, places) + 0.0:.{max(0, places)}f} {sign} {error:.{max(0, places)}f}"


def count(value: object) -> str:
    """A number of things, with its thousands set apart: 50,000; "-" for null."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else number(value)


def duration(seconds: object) -> str:
    """Seconds for people: `0.3 s`, `42 s`, `1 min 42 s`, `2 h 05 min`, `3 d 4 h`; "-" for null."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))


def some(words: Sequence[str], most: int = 4) -> str:
    """As `listed`, but of more than `most` only the first are named and the others counted."""
    return listed([", ".join(words[:most]), f"{len(words) - most} more"] if len(words) > most else words)


def things(amount: int, thing: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{amount} {thing}" if amount == 1 else f"{amount} {thing}s"
