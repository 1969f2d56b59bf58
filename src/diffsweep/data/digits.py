"""Real handwritten digits that every installation has: 1,797 grey images of 8x8.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998), the test part, as carried by
scikit-learn. Values 0..16 become 0..255.
"""

from typing import ClassVar

import numpy as np
import torch

from diffsweep.data.examples import Dataset, Examples, Split, fixed, known_split
from diffsweep.data.modality import IMAGES

TEST = 500


class Digits(Dataset):
    """8x8 digits: 1,297 for training and 500 held out, the classes in equal parts in both.

    Args:
        shape: (1, 8, 8), nothing else.
        classes: 10, nothing else.
        sigma_data: root mean square of the encoded training images.
    """

    name: ClassVar[str] = "digits"
    only_labels = True

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8), classes: int = 10, sigma_data: float = 0.847) -> None:
        super().__init__(shape, classes, sigma_data, IMAGES)
        fixed(self.name, "shape", self.shape, (1, 8, 8))
        fixed(self.name, "classes", self.classes, 10)

    def load(self, split: Split) -> Examples:
        """The split as uint8 (N, 1, 8, 8); see `Dataset.load`."""
        known_split(split)
        # Here and not at the top: scikit-learn costs a second, and only those who use the digits should pay it.
        from sklearn.datasets import load_digits

        bunch = load_digits(return_X_y=True)
        images, labels = np.asarray(bunch[0]), np.asarray(bunch[1])
        x = torch.from_numpy(np.rint(images * (255 / 16)).astype(np.uint8)).view(-1, *self.shape)
        held_out = _held_out(labels)
        keep = held_out if split == "test" else ~held_out
        return Examples(x, torch.from_numpy(labels.astype(np.int64))).take(torch.from_numpy(np.flatnonzero(keep)))


def _held_out(labels: np.ndarray) -> np.ndarray:
    """Mask (N,) of the test images: every N/500-th of the list sorted by (class, random key), hence stratified.

    The keys are raw PCG64 words, which unlike `shuffle` or `permutation` are the same in every version of NumPy.
    """
    order = np.lexsort((np.random.PCG64(0).random_raw(len(labels)), labels))
    mask = np.zeros(len(labels), dtype=bool)
    mask[order[(np.arange(TEST) * len(labels)) // TEST]] = True
    return mask
