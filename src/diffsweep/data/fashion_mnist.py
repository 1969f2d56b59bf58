"""Fashion-MNIST: 60,000 + 10,000 real grey pictures of clothes, 28x28, 10 classes.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv 1708.07747. The files carry the names of MNIST's, so their content is checked, not their names.
"""

import hashlib
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from diffsweep.data.examples import Dataset, Examples, Split, fixed, known_split
from diffsweep.data.idx import read_idx
from diffsweep.data.modality import IMAGES

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
DOWNLOADED = Path("FashionMNIST", "raw")
COUNT = {"train": 60_000, "test": 10_000}
PREFIX = {"train": "train", "test": "t10k"}
# SHA-256 of the values, after gzip and header: archives differ in how they are compressed, pictures do not.
VALUES = {
    "train-images-idx3-ubyte.gz": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte.gz": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte.gz": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte.gz": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}


class FashionMNIST(Dataset):
    """Fashion-MNIST, from the first of: `root`, Debian's package `dataset-fashion-mnist`, the internet.

    Args:
        root: folder that holds the four .gz files (itself or in FashionMNIST/raw) or will hold them; None for none.
        download: whether they may be downloaded into `root` when they are nowhere.
        shape: (1, 28, 28), nothing else.
        classes: 10, nothing else.
        sigma_data: root mean square of the encoded training images.
    """

    name: ClassVar[str] = "fashion_mnist"
    only_labels = True

    def __init__(
        self,
        root: str | Path | None = None,
        download: bool = True,
        shape: tuple[int, ...] = (1, 28, 28),
        classes: int = 10,
        sigma_data: float = 0.826,
    ) -> None:
        super().__init__(shape, classes, sigma_data, IMAGES)
        self.root = None if root is None else Path(root)
        self.download = download
        fixed(self.name, "shape", self.shape, (1, 28, 28))
        fixed(self.name, "classes", self.classes, 10)

    def load(self, split: Split) -> Examples:
        """The split as uint8 (N, 1, 28, 28); see `Dataset.load`.

        Raises:
            ValueError: when a file that was found is not what it should be, or no place has the files (the line says
                what was wrong with each).
        """
        known_split(split)
        names = [f"{PREFIX[split]}-images-idx3-ubyte.gz", f"{PREFIX[split]}-labels-idx1-ubyte.gz"]
        folder = self._find(names)
        count = COUNT[split]
        images = _checked(folder / names[0], (count, 28, 28))
        labels = _checked(folder / names[1], (count,))
        return Examples(images.view(count, *self.shape), labels.to(torch.int64))

    def _find(self, names: list[str]) -> Path:
        places = [DEBIAN] if self.root is None else [self.root, self.root / DOWNLOADED, DEBIAN]
        failures = []
        for place in places:
            missing = [name for name in names if not (place / name).is_file()]
            if not missing:
                return place
            failures.append(f"{place} lacks {' and '.join(missing)}")
        if self.root is None:
            failures.insert(0, "root is not set")
        if not self.download or self.root is None:
            failures.append(
                "downloading is switched off (download=false)"
                if not self.download
                else "nothing can be downloaded without dataset.root"
            )
        else:
            try:
                return _download(self.root)
            except (RuntimeError, HTTPException, OSError) as error:
                failures.append(f"downloading failed ({' '.join(str(error).split())})")
        raise ValueError(f"Fashion-MNIST was not found: {'; '.join(failures)}")


def _checked(path: Path, shape: tuple[int, ...]) -> Tensor:
    values = read_idx(path, shape)
    found = hashlib.sha256(values.numpy().data.cast("B")).hexdigest()
    if found != VALUES[path.name]:
        raise ValueError(f"{path} is not Fashion-MNIST's (SHA-256 of its values {found}, not {VALUES[path.name]})")
    return values


def _download(root: Path) -> Path:
    """Fetch the archives with torchvision (which checks their MD5) beside their place, then move each in whole."""
    from torchvision.datasets import FashionMNIST as Torchvision

    final = root / DOWNLOADED
    final.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final, prefix=".download-") as folder:
        Torchvision(folder, download=True)
        for name in VALUES:
            (Path(folder) / DOWNLOADED / name).replace(final / name)
    return final
