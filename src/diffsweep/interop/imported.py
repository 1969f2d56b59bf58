"""What stands in the place of a training for a model that is there already: no objective, weights that are copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffsweep.diffusion import Denoiser, Schedule
from diffsweep.diffusion.guidance.output import OutputMap
from diffsweep.diffusion.target import X0
from diffsweep.files import atomic, make_folder
from diffsweep.interop.denoising_network import DenoisingNetwork
from diffsweep.sweep.store.provenance import provenance
from diffsweep.sweep.store.record import Fit


class Imported:
    """The objective of a model that was trained elsewhere: nobody knows it, and nothing is trained.

    Args:
        weights: sha256 of the model's weights, by which the fit is known.
    """

    network_inputs = 1
    network_outputs = 1

    def __init__(self, weights: str) -> None:
        self.weights = weights

    def build(self, backbone: nn.Module, schedule: Schedule, sigma_data: float = 0.5) -> Denoiser:
        """The denoiser of a `DenoisingNetwork`, sampled on a schedule which need not be its own.

        Raises:
            ValueError: for another backbone, and for a network that has nothing to say at the schedule's first level.
        """
        if not isinstance(backbone, DenoisingNetwork):
            raise ValueError(
                f"diffuser=imported goes with backbone=imported only, not with {type(backbone).__name__}: "
                "pretrained=FOLDER chooses both"
            )
        check_start(backbone, schedule)
        # The network's answer is x0, and x of unit variance is what it takes.
        return Denoiser(backbone, schedule, X0(), sigma_data=1.0)


def check_start(backbone: DenoisingNetwork, schedule: Schedule) -> None:
    """Refuse a schedule at whose first level a network has nothing to say. Raises ValueError."""
    first = torch.tensor([schedule.level(1.0).logsnr], dtype=torch.float64)
    level = backbone.schedule.path(first)
    values = [float(torch.as_tensor(value)) for value in (level.sigma, *backbone.target.skip_out(level))]
    if not all(map(math.isfinite, values)):
        raise ValueError(
            f"this network predicts {type(backbone.target).__name__.lower()}, which says nothing of x0 where the "
            f"schedule starts, in pure noise: choose schedule=imported, or another that keeps some signal"
        )


def same_schedule(schedule: Schedule) -> Schedule:
    """The schedule that a checkpoint describes.

    Args:
        schedule: That one.
    """
    return schedule


def same_output(output: OutputMap) -> OutputMap:
    """What a checkpoint's scheduler does to each x0.

    Args:
        output: That one.
    """
    return output


@dataclass(frozen=True, eq=False)
class Import:
    """How a model that is there already becomes a finished fit.

    Attributes:
        denoiser: The model, untrained.
        weights: Digest of the weights that it is known by.
        source: Where they are, as the user names it.
        read: Reads the source again: name of its format, digest and weights by their names in the backbone.
    """

    denoiser: Denoiser
    weights: str
    source: str
    read: Callable[[], tuple[str, str, Mapping[str, Tensor]]]

    def load(self) -> tuple[str, str]:
        """Put the weights into the denoiser; returns the name of the format and the digest. Raises ValueError."""
        kind, digest, state = self.read()
        if digest != self.weights:
            raise ValueError(f"pretrained={self.source} has other weights now than when this run was asked for")
        try:
            self.denoiser.backbone.load_state_dict(dict(state))
        except RuntimeError as error:
            raise ValueError(f"pretrained={self.source}: {' '.join(str(error).split())[:300]}") from error
        return kind, digest

    def __call__(self, record: Fit) -> None:
        """Write weights and done.json of a fit; what was there is replaced.

        Raises:
            ValueError: if the source has changed or cannot be read.
        """
        from safetensors.torch import save_file

        kind, digest = self.load()
        make_folder(record.checkpoints)
        kept = self.denoiser.backbone.state_dict()
        with atomic(record.checkpoints / "ema.safetensors") as temporary:
            save_file({name: value.detach().cpu().clone().contiguous() for name, value in kept.items()}, temporary)
        record.write_done(
            {
                "fit": record.signature,
                "origin": "imported",
                "imported_from": self.source,
                "format": kind,
                "weights_digest": digest,
                "steps": None,
                "seconds": 0.0,
                "parameters": sum(p.numel() for p in self.denoiser.parameters()),
                **provenance(),
            }
        )
        record.write_status("done", stage="import")
