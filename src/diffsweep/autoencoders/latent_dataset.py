"""A dataset as a latent diffusion sees it: its images are stored, shown and scored as they are."""

from __future__ import annotations

from typing import final

from torch import Tensor

from diffsweep.autoencoders.latent_space import LatentSpace
from diffsweep.data.examples import Dataset, Examples
from diffsweep.data.modality import IMAGES
from diffsweep.data.source import Source
from diffsweep.mistakes import BadValue
from diffsweep.settings import Split


@final
class LatentDataset(Dataset):
    """Images of another dataset, which a network sees as normalised latents.

    Args:
        inner: a dataset of images.
        space: of its latents.

    Raises:
        ValueError: for data that are no images, or of another shape than the autoencoder was built for.
    """

    def __init__(self, inner: Dataset, space: LatentSpace) -> None:
        super().__init__(space.autoencoder.latent_shape, inner.classes, 1.0, IMAGES)
        # No class variable here: it is called after its images.
        self.name = inner.name  # pyright: ignore[reportAttributeAccessIssue]
        if inner.modality != IMAGES or inner.stored != inner.shape:
            raise BadValue("dataset", inner.name, f"holds {inner.modality.name} that an autoencoder does not take")
        if space.autoencoder.shape != inner.stored:
            raise ValueError(
                f"this autoencoder is built for images {space.autoencoder.shape}, and dataset={inner.name} has "
                f"{inner.stored}"
            )
        self.inner, self.space, self.only_labels = inner, space, inner.only_labels
        self.stored, self.modality = inner.stored, inner.modality
        self.encode, self.decode = space.encode, space.decode

    def load(self, split: Split) -> Source:
        """The images of `inner`; see `Dataset.load`."""
        return self.inner.load(split)


@final
class ReconstructedSource:
    """Images of a source after both ways through an autoencoder, with the names of their numbers: real data to measure.

    Args:
        images: the source.
        space: of a finished autoencoder.
    """

    def __init__(self, images: Source, space: LatentSpace) -> None:
        assert space.signature is not None, "an autoencoder without weights reconstructs nothing"
        self._images, self._space = images, space

    def __len__(self) -> int:
        return len(self._images)

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return self._images.labels

    def take(self, numbers: Tensor) -> Examples:
        """See `Source.take`."""
        found = self._images.take(numbers)
        device = next(self._space.autoencoder.parameters()).device
        return found.with_x(self._space.reconstructed(found.x.to(device)).cpu())

    def digest(self) -> str:
        """Of the images and the autoencoder."""
        return f"{self._images.digest()}/{self._space.signature}"
