"""The averaged weights of a finished fit, read from its folder."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_file

from diffsweep.diffusion import Denoiser
from diffsweep.sweep.store.record import Fit


def load_weights(denoiser: Denoiser, fitted: Fit) -> None:
    """Put a finished fit's averaged weights into a denoiser.

    Raises:
        ValueError: if the file cannot be read or holds other weights.
    """
    path = fitted.checkpoints / "ema.safetensors"
    try:
        denoiser.backbone.load_state_dict(load_file(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged ({line}): move {fitted.folder} away to train again") from error
