"""FID's own features: the 2048 pooled outputs of the Inception network of 2015, resized as TensorFlow 1 did.

Source: arXiv 1706.08500, section "Frechet Inception Distance"; network and weights as ported by torch-fidelity. Only
these weights give a distance that may be called `fid`, so their SHA-256 is checked before use.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from diffsweep.evaluation.extractor import Extractor, sha256

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SHA256 = "6726825d"
ARCHITECTURE = "torch-fidelity inception-v3-compat, layer 2048, 299x299 bilinear as TensorFlow 1"


class Inception(nn.Module):
    """The architecture alone, with the weights that it is given: uint8 (N, 1 or 3, H, W) to features (N, 2048)."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity unpickles any file it is pointed at; it is handed only what we have just pickled ourselves.
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        buffer.seek(0)
        self.body = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features; grey images are shown as three equal channels."""
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"fid takes uint8 (N, 1 or 3, H, W), not {x.dtype} {tuple(x.shape)}")
        return self.body(x.expand(-1, 3, -1, -1))[0]


def inception(weights: str | None = None) -> Extractor:
    """The extractor of FID.

    Args:
        weights: path of the weights file; None looks for it in torch's hub folder (`$TORCH_HOME/hub/checkpoints`) and
            downloads it there (95 MB) when it is missing.

    Raises:
        ValueError: when the file cannot be had (the line says which file to put where) or is not the original.
    """
    place = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not place.is_file():
        if weights:
            raise ValueError(f"extractor.weights={weights} is not a file: give the path of {FILE} ({URL})")
        _download(place)
    content = place.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(SHA256):
        raise ValueError(f"{place} is not the Inception of FID: its SHA-256 is {digest}, not {SHA256}...; delete it")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return Extractor(Inception(state), "inception", 2048, sha256(ARCHITECTURE, digest))


def _download(place: Path) -> None:
    part = place.with_name(f".{place.name}.{os.getpid()}")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(URL, str(part), hash_prefix=SHA256, progress=False)
        part.replace(place)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"no Inception weights for fid, and downloading failed ({reason}): put {FILE} from {URL} at {place}"
        ) from None
    finally:
        part.unlink(missing_ok=True)
