"""Small collections of real pictures in every format that `dataset=images` reads, made from scikit-learn's digits."""

from __future__ import annotations

import functools
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

COUNT = 60


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (COUNT, 8, 8) and labels (COUNT,)."""
    bunch: Any = load_digits()
    return np.rint(bunch.images[:COUNT] * (255 / 16)).astype(np.uint8), bunch.target[:COUNT]


@functools.cache
def files() -> dict[str, bytes]:
    """PNG files by name, in a folder for each class: 3/17.png."""
    found = {}
    for number, (pixels, label) in enumerate(zip(*digits(), strict=True)):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        found[f"{label}/{number}.png"] = buffer.getvalue()
    return found


def write_tree(folder: Path, content: dict[str, bytes]) -> Path:
    """Write files by relative name below `folder`, and return it."""
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def as_folder(place: Path) -> Path:
    return write_tree(place / "folder", files())


def as_zip(place: Path) -> Path:
    path = place / "digits.zip"
    with zipfile.ZipFile(path, "w") as archive:
        # In another order, below a folder that says nothing.
        for name, data in reversed(files().items()):
            archive.writestr(f"digits/{name}", data)
    return path


def as_edm_zip(place: Path) -> Path:
    """As NVlabs' dataset_tool.py writes them: numbered folders, and the classes in dataset.json."""
    path = place / "edm.zip"
    labels = []
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, data) in enumerate(files().items()):
            place_in_zip = f"{number // 20:05d}/img{number:08d}.png"
            archive.writestr(place_in_zip, data)
            labels.append([place_in_zip, int(name.partition("/")[0])])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def as_tar_shards(place: Path) -> Path:
    """webdataset: two shards, the class in KEY.cls."""
    folder = place / "shards"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number, (name, data) in enumerate(files().items()):
                if number % 2 == shard:
                    _add(archive, f"{number:04d}.png", data)
                    _add(archive, f"{number:04d}.cls", name.partition("/")[0].encode())
    return folder


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def as_parquet(place: Path) -> Path:
    """As Hugging Face writes image datasets: the bytes of files, and names of classes in the schema."""
    import pyarrow
    from pyarrow import parquet

    path = place / "digits.parquet"
    features = {"features": {"label": {"names": [str(label) for label in range(10)], "_type": "ClassLabel"}}}
    table = pyarrow.table(
        {
            "image": [{"bytes": data, "path": name} for name, data in files().items()],
            "label": [int(name.partition("/")[0]) for name in files()],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": features})})
    parquet.write_table(table, path)
    return path


def as_npz(place: Path) -> Path:
    path = place / "digits.npz"
    np.savez(path, *digits())
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "folder": as_folder,
    "zip": as_zip,
    "edm_zip": as_edm_zip,
    "tar_shards": as_tar_shards,
    "parquet": as_parquet,
    "npz": as_npz,
}
