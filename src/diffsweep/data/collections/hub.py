"""Collections of Hugging Face's hub by name: fetched once by `huggingface_hub` into its own cache."""

from __future__ import annotations

from pathlib import Path

from diffsweep.hub import repository, snapshot


def collection(path: Path) -> Path:
    """Where a collection lies: `path` itself, or where `hf://OWNER/NAME` has been fetched to.

    Raises:
        ValueError: in one line, if it cannot be fetched.
    """
    name = repository(path)
    return path if name is None else snapshot(name, "dataset")
