"""Where the weights of a feature extractor come from, and that they are what they are called.

A file is looked for at the path that the user gives, in the folder `paths.weights`, in torch's hub folder
(`$TORCH_HOME/hub/checkpoints`) and in the installed package that carries it; where it is nowhere, it is downloaded if
that may be done. Other weights under the right name give a wrong distance without a sign of it, so the SHA-256 is
always checked, of the very bytes that are used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch

from diffsweep.mistakes import BadValue


@dataclass(frozen=True)
class File:
    """A weights file.

    Attributes:
        what: what it holds, in words, as "the Inception of FID".
        name: of the file.
        sha256: of its content (hex); None where the user has to say it.
        url: where people find it, in words if it is not downloaded.
        fetch: whether it may be downloaded from there by us.
        package: name of an installed package that carries it, and the path inside it.
    """

    what: str
    name: str
    sha256: str | None
    url: str
    fetch: bool = True
    package: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class Weights:
    """Checked bytes.

    Attributes:
        content: of the file.
        path: where it lies.
        digest: SHA-256 (hex) of the content.
    """

    content: bytes
    path: Path
    digest: str


def find(file: File, weights: str | Path | None = None, folder: str | Path | None = None) -> Weights:
    """The file's content, from the first place that has it.

    Args:
        file: which one.
        weights: the only path to look at, whatever the name there; None for the usual places.
        folder: one more place, the first to look at and the one to download to.

    Raises:
        ValueError: when the file is nowhere and cannot be fetched (the line says which file to put where), when its
            SHA-256 is another, or not known (the line says it).
    """
    if weights is not None:
        place = Path(weights)
        if not place.is_file():
            raise BadValue("weights", weights, f"is not a file: give the path of {file.name} ({file.url})")
        return _checked(file, place)
    for place in places(file, folder):
        if place.is_file():
            return _checked(file, place)
    return _checked(file, _fetched(file, home(folder) / file.name))


def places(file: File, folder: str | Path | None = None) -> Iterator[Path]:
    """Where the file is looked for, in this order."""
    if folder is not None:
        yield Path(folder) / file.name
    yield home(None) / file.name
    if file.package is not None:
        package, inside = file.package
        # Found, not imported: no code of the package runs.
        spec = importlib.util.find_spec(package)
        for location in spec.submodule_search_locations or () if spec else ():
            yield Path(location) / inside


def home(folder: str | Path | None) -> Path:
    """Where files are downloaded to: the folder, or torch's hub folder."""
    return Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)


def _checked(file: File, place: Path) -> Weights:
    content = place.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if file.sha256 is None:
        raise BadValue("sha256", None, f"does not say which weights these are: {place} has sha256={digest}")
    if digest != file.sha256.lower():
        raise ValueError(
            f"{place} is not {file.what}: its SHA-256 is {digest}, not {file.sha256}; put {file.name} from {file.url} "
            "there"
        )
    return Weights(content, place, digest)


def _fetched(file: File, place: Path) -> Path:
    failed = ""
    if file.fetch:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # It writes beside the place, checks, then renames: the file is there whole or not at all.
            torch.hub.download_url_to_file(file.url, str(place), file.sha256, progress=sys.stderr.isatty())
            return place
        except (OSError, HTTPException, RuntimeError) as error:
            failed = f" (downloading failed: {' '.join(str(error).split())})"
    raise ValueError(
        f"{file.what} is not here: put {file.name} from {file.url} at {place}, or in a folder that paths.weights names"
        f"{failed}"
    )
