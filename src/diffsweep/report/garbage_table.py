"""What `diffsweep gc` prints: every file and training that it would delete, by kind, with sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diffsweep.sweep.store.garbage import DAY, Garbage


def lines(found: Sequence[Garbage], older_than: float) -> Iterator[str]:
    """Every piece of garbage in a line, the largest of its kind first; `older_than` in seconds, as it was found by."""
    titles = {
        "fit": f"trainings without result, in no sweep and quiet for {older_than / DAY:g} days, or pruned by a search",
        "checkpoint": "checkpoints of finished trainings",
        "temporary": "leftovers of killed writers",
        "lease": "old leases",
    }
    for kind, title in titles.items():
        ours = sorted((one for one in found if one.kind == kind), key=lambda one: -one.size)
        if ours:
            yield f"{size(sum(one.size for one in ours)):>9}  {len(ours)} {title}"
        for one in ours:
            files = "" if one.kind != "fit" else "1 file, " if one.files == 1 else f"{one.files} files, "
            yield f"{size(one.size):>9}    {one.path}  ({files}{one.why})"


def size(number: int) -> str:
    """A number of bytes for people, as "5 kB"."""
    if number < 1000:
        return f"{number} B"
    value, units = number / 1000, iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 999.5 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"
