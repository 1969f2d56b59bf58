"""One shape for every feature extractor: stored examples in, float32 (N, d) out, and the names of its numbers.

A distance means nothing without the features that it was measured in, so an extractor carries the name of its space,
which is part of the name of every number measured there, and a digest of everything that shapes a feature.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from diffsweep.mistakes import whole

# Only in the features of the original Inception has a number the name that papers print.
_PLAIN = {"fd": "fid", "sfd": "sfid", "kd": "kid", "score": "inception_score"}

# For a network that sees pictures of about 224 pixels. What one makes of many at once is memory that the system takes
# back after each layer and clears for the next, which took longer than the network itself.
CPU_BATCH = 8


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network and the names of what is measured in its features.

    Attributes:
        network: maps a batch of stored examples, as uint8 (N, C, H, W) in 0..255 or float points (N, D), to features
            (N, dimension), or to several outputs by name, `features` among them: `logits` (N, classes) of a classifier,
            `spatial` (N, d).
        space: short name of the features, as digits: the Frechet distance in them is `fd_digits`. `inception` is for
            the original Inception only, whose distance is `fid`.
        dimension: number of features.
        digest: SHA-256 (hex) of architecture, weights, resize: equal digests mean equal features.
        outputs: names of what the network gives.
        resize: how it brings pictures to its size, as results tell it.
        device: where the network lies and runs.
        files: its weights were read from; none, if they come with this package.
        cpu_batch: how many pictures the network is given at a time on a CPU; None for all.
    """

    network: nn.Module
    space: str
    dimension: int
    digest: str
    outputs: tuple[str, ...] = ("features",)
    resize: str = "none"
    device: str = "cpu"
    files: tuple[Path, ...] = ()
    cpu_batch: int | None = None

    def called(self, number: str) -> str:
        """Full name of a number measured in these features: `fd` is `fd_digits` or `fid`, `fd.floor` `fd_digits_floor`.

        Args:
            number: what is measured, and after a dot what of it.
        """
        first, _, rest = number.partition(".")
        full = _PLAIN.get(first, first) if self.space == "inception" else f"{first}_{self.space}"
        return f"{full}_{rest}" if rest else full

    def to(self, device: torch.device | str) -> "Extractor":
        """The same extractor on another device."""
        return replace(self, network=self.network.to(device), device=str(device))

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """All outputs of one batch, each float32 (N, d), on the extractor's device.

        Raises:
            ValueError: when `x` does not fit the network.
        """
        kind = torch.device(self.device).type
        parts = x.split(self.cpu_batch) if self.cpu_batch and kind == "cpu" and len(x) else (x,)
        # Float32 whatever the training runs in: autocast and TF32 convolutions move the distance between machines.
        with torch.autocast(kind, enabled=False), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            given = [self._outputs(part) for part in parts]
        found = {
            name: torch.cat([one[name] for one in given]) if len(given) > 1 else given[0][name] for name in given[0]
        }
        shape = tuple(found["features"].shape)
        if shape != (len(x), self.dimension):
            raise ValueError(f"extractor {self.space} gave features {shape}, not {(len(x), self.dimension)}")
        return found

    def _outputs(self, x: Tensor) -> dict[str, Tensor]:
        given: Tensor | Mapping[str, Tensor] = self.network.eval()(x.to(self.device))
        outputs = {"features": given} if isinstance(given, Tensor) else given
        if set(outputs) != set(self.outputs):
            raise ValueError(f"extractor {self.space} gave {', '.join(outputs)}, not {', '.join(self.outputs)}")
        return {name: outputs[name].to(torch.float32) for name in self.outputs}

    def batches(self, x: Tensor, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """Outputs of `x` in its order, at most `batch_size` rows at a time.

        Raises:
            ValueError: when `batch_size` is not positive.
        """
        return map(self, x.split(whole("batch_size", batch_size, 1)))


def sha256(*parts: str | bytes) -> str:
    """SHA-256 (hex) of `parts`, each preceded by its length so that no two lists of parts collide."""
    sha = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        sha.update(f"{len(content)}:".encode())
        sha.update(content)
    return sha.hexdigest()
