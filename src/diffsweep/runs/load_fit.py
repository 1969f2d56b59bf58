"""A finished fit's model, rebuilt from its folder: from config.yaml the network, from ema.safetensors its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffsweep.diffusion import Denoiser
from diffsweep.mistakes import below
from diffsweep.runs.autoencoder import make_dataset
from diffsweep.runs.instantiate import checked_arguments, make, make_denoiser
from diffsweep.runs.trust import check_targets
from diffsweep.scoring.weights import WeightsChoice, load_weights
from diffsweep.sweep.store.record import NAMED_FITS, Fit


def weights_choice(cfg: Mapping[str, Any] | DictConfig) -> WeightsChoice:
    """Which weights of a training a config evaluates: the training's own choice where it says nothing of them.

    Raises:
        ValueError: for a value that no training can have kept.
    """
    given: Any = cfg.get("weights") or {}
    plain: Any = OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    arguments = checked_arguments(WeightsChoice, plain, "weights")
    with below("weights"):
        return WeightsChoice(**arguments)


def finished(
    runs: str | Path, signature: str, own: DictConfig | None = None, weights: WeightsChoice | None = None
) -> Denoiser:
    """The frozen denoiser of a finished fit, with its averaged weights, on the CPU, in evaluation mode.

    Args:
        runs: Folder of all runs, as ``paths.runs``.
        signature: The fit's name: a folder of ``<runs>/fits``, as ``fit`` in result.json.
        own: The config that names the fit; what it is built of may be imported, see `runs.trust`.
        weights: Which ones; None for those of the training's choice.

    Raises:
        ValueError: if there is no such fit, if it is not finished, if its files cannot be read, or if its config names
            a class that is not trusted.
    """
    fits = Path(runs) / "fits"
    records = {path.parent.name: Fit(path.parent).result() for path in fits.glob("*/done.json")}
    if (records.get(signature) or {}).get("external"):
        raise ValueError(f"{fits / signature} has images that were made elsewhere, and no model")
    done = sorted(name for name, record in records.items() if record and not record.get("external"))
    if signature not in done:
        named = f"{fits} has no finished fit {signature!r}"
        if isinstance(signature, (int, float)):
            # Twelve digits, or digits and one e, are a number to a command line.
            raise ValueError(f"{named}: give its name as text, in quotes")
        known = f"choose one of {', '.join(done)}" if done else "train one first; its name is `fit` in its result.json"
        raise ValueError(f"{named}: {known}")
    record = Fit(fits / signature)
    cfg = record.frozen_config()
    check_targets(cfg, record.config_file, own)
    # The first weights are drawn and thrown away; whoever asks must not find the global generator moved by that.
    with torch.random.fork_rng(devices=[]):
        try:
            frozen = named_model(cfg, "backbone.frozen", runs)
            denoiser = make_denoiser(cfg, make_dataset(cfg), make(cfg, "schedule"), make(cfg, "diffuser"), frozen)
        except (AttributeError, TypeError, RuntimeError, LookupError, OmegaConfBaseException) as error:
            raise ValueError(f"{record.config_file} describes no model: {' '.join(str(error).split())}") from error
    load_weights(denoiser, record, weights)
    return denoiser.requires_grad_(False).eval()


def named_model(
    cfg: DictConfig, key: str, runs: str | Path | None = None, weights: WeightsChoice | None = None
) -> Denoiser | None:
    """The finished model that a config names at one of `NAMED_FITS`, on the CPU; None if it names none.

    Args:
        cfg: The config.
        key: A dotted key, as ``backbone.frozen``.
        runs: Folder of all runs; None for that of the config.
        weights: Which ones; None for those of its training's choice.

    Raises:
        ValueError: as `finished`, naming the key.
    """
    assert key in NAMED_FITS, f"{key} is not in NAMED_FITS: a plan would not train first what it names"
    name = OmegaConf.select(cfg, key)
    if name is None:
        return None
    try:
        return finished(cfg.paths.runs if runs is None else runs, name, weights=weights)
    except ValueError as error:
        raise ValueError(f"{key}={name}: {error}") from error
