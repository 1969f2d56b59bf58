"""Features for small grey images: the layer before the logits of a classifier that we trained on the same data.

The idea is FID's (arXiv 1706.08500) with a network that knows the domain, as is usual for MNIST-like data. Its distance
is called `fd_NAME`, never `fid`: numbers of two extractors cannot be compared. The features are a normalised linear
layer without an activation behind it, so they grade how far an image is from the data and do not saturate.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from diffsweep.evaluation.extractor import Extractor, sha256

WEIGHTS = Path(__file__).parent / "weights"
FEATURES = 64
# Part of the extractor's identity: to be changed together with what `Classifier.forward` computes.
ARCHITECTURE = "four convolutions, quarters, 64 normalised features"


class Classifier(nn.Module):
    """Four 3x3 convolutions, means over the quarters of the picture, 64 normalised features, one linear layer.

    Args:
        shape: (C, H, W) of the images, H and W at least 4.
        classes: number of labels.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.body = nn.Sequential(
            *_conv(shape[0], 32, pool=True),
            *_conv(32, 64, pool=True),
            *_conv(64, 64),
            *_conv(64, 64),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 64, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
        )
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(FEATURES, classes))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`features` (N, 64) and `logits` (N, classes) of uint8 images (N, C, H, W), or of float images in 0..255.

        Raises:
            ValueError: when the images have another shape than the classifier was trained on.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"this extractor takes images {self.shape}, not {tuple(x.shape[1:])}: choose another one")
        features = self.body(x.float() / 127.5 - 1)
        return {"features": features, "logits": self.head(features)}


def _conv(before: int, after: int, pool: bool = False) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    # The pool stands before the activation: a quarter of the work for normalisation and activation.
    return [convolution, *([nn.MaxPool2d(2)] if pool else []), nn.BatchNorm2d(after), nn.SiLU()]


def classifier(name: str) -> Extractor:
    """The extractor whose weights come with the package as `weights/NAME.safetensors`; its distance is `fd_NAME`.

    Args:
        name: Of the weights, as digits.

    Raises:
        ValueError: when there are no such weights.
    """
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in WEIGHTS.glob("*.safetensors")))
        raise ValueError(f"there is no classifier named {name!r}: choose one of {known}")
    digest = sha256(ARCHITECTURE, path.read_bytes())
    return Extractor(_load(path), name, FEATURES, digest, outputs=("features", "logits"))


def _load(path: Path) -> Classifier:
    with safe_open(path, framework="pt") as stream:
        metadata: Mapping[str, str] = stream.metadata()
        state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
    network = Classifier(**json.loads(metadata["network"]))
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()
