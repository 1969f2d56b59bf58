"""Hugging Face's hub: what lies there as `hf://OWNER/NAME`, fetched into its own cache, and folders sent there.

Where `HF_HUB_OFFLINE=1`, or without a network, what was fetched before is read from that cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffsweep.messages import printable

# As `Path` writes `hf://`.
_PREFIX = "hf:/"


def repository(path: str | Path) -> str | None:
    """OWNER/NAME of `hf://OWNER/NAME`; None for any other path."""
    return str(path).removeprefix(_PREFIX).strip("/") if str(path).startswith(_PREFIX) else None


def snapshot(name: str, kind: str) -> Path:
    """The folder of a repository's files, fetched where it is not yet.

    Args:
        name: OWNER/NAME.
        kind: The hub's `repo_type`: model or dataset.

    Raises:
        ValueError: in one line, if it cannot be fetched.
    """
    hub = _package(f"fetching hf://{name}")
    try:
        return Path(hub.snapshot_download(name, repo_type=kind))
    except Exception as error:
        # Where there is no answer the client raises what its HTTP library does, of which it has had three.
        how = "where there is no hub, copy its files and give their folder"
        raise ValueError(f"hf://{name} cannot be fetched ({_first(error)}): {how}") from error


def send(folder: Path, name: str) -> str:
    """Send a folder's files to a repository of models, which is made if it is not there; its address.

    Raises:
        ValueError: in one line, if they cannot be sent.
    """
    hub = _package(f"sending to hf://{name}")
    try:
        hub.create_repo(name, repo_type="model", exist_ok=True)
        return str(hub.upload_folder(repo_id=name, repo_type="model", folder_path=folder))
    except Exception as error:
        how = "export to a folder, which can be sent later"
        raise ValueError(f"hf://{name} cannot be sent to ({_first(error)}): {how}") from error


def _package(what: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(f"{what} needs huggingface_hub: pip install 'diffsweep[hub]'") from error
    return huggingface_hub


def _first(error: Exception) -> str:
    """The first sentence says what is wrong; more of them say it again."""
    return printable(" ".join(str(error).split()) or type(error).__name__).split(". ")[0]
