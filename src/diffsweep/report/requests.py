"""What the samples of a cell were asked for, as its requests.json has it."""

from __future__ import annotations

from diffsweep.files import read_json
from diffsweep.sweep.store.record import Cell


def requested_texts(cell: Cell) -> list[str]:
    """The text that each sample was asked for, in their order; none where they were asked for no text."""
    try:
        found = (read_json(cell.requests_file) or {}).get("text")
    except (OSError, ValueError):
        # It is for a heading only: a file that is damaged is as none.
        return []
    return [str(text) for text in found] if isinstance(found, list) else []
