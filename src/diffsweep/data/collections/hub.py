"""Collections of Hugging Face's hub by name: fetched once by `huggingface_hub` into its own cache."""

from __future__ import annotations

from pathlib import Path

from diffsweep.data.collections.names import one_line

# As `Path` writes `hf://`.
_HUB = "hf:/"


def collection(path: Path) -> Path:
    """Where a collection lies: `path` itself, or where `hf://OWNER/NAME` has been fetched to.

    Raises:
        ValueError: in one line, if it cannot be fetched.
    """
    if not str(path).startswith(_HUB):
        return path
    name = str(path).removeprefix(_HUB).strip("/")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"fetching hf://{name} needs huggingface_hub: pip install 'diffsweep[hub]'") from error
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except (OSError, ValueError) as error:
        # The first line says what is wrong; more of them say it again.
        reason = one_line(error).split(". ")[0]
        raise ValueError(
            f"hf://{name} cannot be fetched ({reason}): where there is no hub, copy its files and give their folder"
        ) from error
