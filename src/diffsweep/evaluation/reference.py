"""Moments of the real data, computed once per (data, extractor) and cached under a hash of everything that shapes them.

A stale reference gives a distance that is wrong without a sign of it, so a cache file is trusted only by its name (the
digests of data and extractor) together with a checksum of what it holds.
"""

import json
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffsweep.evaluation.extractor import Extractor, sha256
from diffsweep.evaluation.frechet import Moments, accumulate, frechet_distance
from diffsweep.evaluation.whole import write_whole

FORMAT = "1"


class Real(Protocol):
    """Real data: uint8 images (N, C, H, W) or float32 points (N, D), and their identity."""

    @property
    def x(self) -> Tensor:
        """The data."""
        ...

    def digest(self) -> str:
        """Identity of the data: changes with any value, shape or dtype."""
        ...


def reference(
    examples: Real, extractor: Extractor, cache: Path, batch_size: int, device: torch.device | str
) -> Moments:
    """Moments of all `examples`, from the folder `cache` or computed on `device` and kept there.

    A cache file that is absent, cut short or altered is computed again; writers may race, each writes a whole file.

    Raises:
        ValueError: when the data do not fit the extractor.
    """
    path = Path(cache) / f"reference-{_key(examples, extractor)}.safetensors"
    moments = _read(path, extractor.dimension)
    if moments is None:
        moments = accumulate(extractor.to(device).batches(examples.x, batch_size))
        metadata = {"n": str(moments.n), "metric": extractor.metric, "sha256": _checksum(moments)}
        write_whole(path, save({"mean": moments.mean, "cov": moments.cov}, metadata))
    return moments


def floor(
    test: Real, n: int, reference: Moments, extractor: Extractor, seed: int, batch_size: int = 500
) -> tuple[float, int]:
    """The distance that `n` real images have: what a perfect model would score with as many samples.

    Args:
        test: held-out real data.
        n: number of images wanted, at least 2.
        reference: moments of the training data in the same features.
        extractor: on the device to compute on.
        seed: of the choice, without replacement.
        batch_size: images at a time.

    Returns:
        The distance and the number of images that it was measured with: min(n, available).

    Raises:
        ValueError: when `n` or the number of available images is below 2.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(test.x), generator=generator)[: max(n, 0)]
    if len(chosen) < 2:
        raise ValueError(f"the floor needs at least 2 held-out images, not {n} of {len(test.x)}")
    moments = accumulate(extractor.batches(test.x[chosen], batch_size))
    return frechet_distance(moments, reference), moments.n


def _key(examples: Real, extractor: Extractor) -> str:
    identity = {
        "format": FORMAT,
        "data": examples.digest(),
        "extractor": extractor.digest,
        "metric": extractor.metric,
        "dimension": extractor.dimension,
    }
    return sha256(json.dumps(identity, sort_keys=True))[:32]


def _checksum(moments: Moments) -> str:
    return sha256(moments.mean.numpy().tobytes(), moments.cov.numpy().tobytes(), str(moments.n))


def _read(path: Path, dimension: int) -> Moments | None:
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            moments = Moments(stream.get_tensor("mean"), stream.get_tensor("cov"), int(metadata["n"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    sound = moments.cov.shape == (dimension, dimension) and _checksum(moments) == metadata.get("sha256")
    return moments if sound else None
