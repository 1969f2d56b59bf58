"""FID's own features: those of the Inception network of 2015, its input resized as TensorFlow 1 did.

One pass gives the 2048 pooled `features` of FID (arXiv 1706.08500, section "Frechet Inception Distance"), the 1008
`logits` without bias of the Inception Score (arXiv 1606.03498, as torch-fidelity's `logits_unbiased`), and the
`spatial` features of sFID ("Generating images with sparse representations", arXiv 2103.03841, section 4), 7 channels
of 17 x 17. Network and weights as ported by torch-fidelity; only these weights give a distance that may be called
`fid`, so their SHA-256 is checked before use.

The spatial features are those of ADM's evaluator (guided-diffusion, `evaluations/evaluator.py`): `FID_SPATIAL_NAME =
"mixed_6/conv:0"`, of which `[..., :7]`. The tables by which the graph's weights are converted to PyTorch name
`mixed_6/conv` `Mixed_6d.branch1x1`, and other ports take the output of that block, or the same channels of Mixed_6d, as
here. Not verified on the TensorFlow graph, which is in no package: that its node `mixed_6/conv` is, as in these ports,
the ReLU after convolution and normalisation. A Frechet distance does not depend on the order in which 2023 are listed.
"""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffsweep.evaluation.extractor import CPU_BATCH, Extractor, sha256
from diffsweep.evaluation.opacity import over_white
from diffsweep.evaluation.pretrained import File, find

FILE = File(
    what="the Inception of FID",
    name="weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
RESIZE = "299x299 bilinear as TensorFlow 1, not antialiased"
ARCHITECTURE = f"torch-fidelity inception-v3-compat, 2048 and logits_unbiased, Mixed_6d.branch1x1[:7], {RESIZE}"
OUTPUTS = ("features", "logits", "spatial")
CHANNELS = 7


class Inception(nn.Module):
    """The architecture alone, with the weights that it is given."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity unpickles any file it is pointed at; it is handed only what we have just pickled ourselves.
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        buffer.seek(0)
        layers = ["2048", "logits_unbiased"]
        self.body = FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=buffer)
        self.body.Conv2d_1a_3x3.register_forward_pre_hook(_laid_out)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`features` (N, 2048), `logits` (N, 1008) and `spatial` (N, 2023) of uint8 (N, 1 or 3, H, W).

        Grey images are shown as three equal channels, and a fourth channel is opacity over white.

        Raises:
            ValueError: for another dtype or shape.
        """
        x = over_white(x)
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"inception takes uint8 (N, 1 or 3, H, W), not {x.dtype} {tuple(x.shape)}")
        seen: list[Any] = []
        hook = self.body.Mixed_6d.branch1x1.register_forward_hook(lambda _module, _given, out: seen.append(out))
        try:
            features, logits = self.body(x.expand(-1, 3, -1, -1))
        finally:
            hook.remove()
        (spatial,) = seen
        return {"features": features, "logits": logits, "spatial": spatial[:, :CHANNELS].flatten(1)}


def _laid_out(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # Channels last, a quarter of the CPU's time is saved; all layers keep the layout of their input.
    return tuple(x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x for x in given)


def inception(weights: str | None = None, folder: str | None = None) -> Extractor:
    """The extractor of FID, sFID, KID and the Inception Score.

    Args:
        weights: path of the weights file; None looks for it in `folder` and in torch's hub folder
            (`$TORCH_HOME/hub/checkpoints`), and downloads it (95 MB) when it is in neither.
        folder: of weights files, `paths.weights`.

    Raises:
        ValueError: when the file cannot be had (the line says which file to put where) or is not the original.
    """
    found = find(FILE, weights, folder)
    state = torch.load(io.BytesIO(found.content), map_location="cpu", weights_only=True)
    return Extractor(
        Inception(state),
        "inception",
        2048,
        sha256(ARCHITECTURE, found.digest),
        OUTPUTS,
        RESIZE,
        files=(found.path,),
        cpu_batch=CPU_BATCH,
    )
