"""A denoiser of a diffusers network as nodes of stock classes: the scheduler that walks the same levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from diffsweep.diffusion import Denoiser, Sampler
from diffsweep.diffusion.guidance import ClassifierFree, Clip, Distilled, Dynamic, Guidance, Unguided
from diffsweep.diffusion.schedules import Rectified, Schedule, Shifted
from diffsweep.diffusion.solvers import DPMpp2M, Euler, Heun, UniPC
from diffsweep.diffusion.spacing import Linspace, Time
from diffsweep.diffusion.target import X0, Eps, Flow, Target, V
from diffsweep.interop.denoising_network import GUIDANCE, DenoisingNetwork
from diffsweep.interop.diffusers_network import DiffusersNetwork
from diffsweep.interop.levels import Time as TimeInput
from diffsweep.interop.levels import Timestep

_PREDICTIONS: tuple[tuple[type[Target], str], ...] = (
    (Eps, "epsilon"),
    (X0, "sample"),
    (V, "v_prediction"),
    (Flow, "flow_prediction"),
)


@dataclass(frozen=True, eq=False)
class StockModel:
    """What of a run stock classes of diffusers can hold.

    Attributes:
        network: The network, as diffusers built it.
        part: Its place in a pipeline: unet or transformer.
        scheduler: Name of the scheduler's class, and its arguments.
        same: Whether that scheduler, with as many steps, samples as the run did.
        steps: Number of its steps.
        call: Arguments that a pipeline with a text must be called with, so that it guides as the run did.
    """

    network: Any
    part: str
    scheduler: tuple[str, dict[str, Any]]
    same: bool
    steps: int
    call: Mapping[str, float] = field(default_factory=dict)


def stock_model(denoiser: Denoiser, sampler: Sampler, guidance: Guidance) -> StockModel | None:
    """The stock classes that hold a run's model; None for a network that is none of diffusers'.

    A pipeline that is told a text guides by itself, so that the scheduler need not know of it.
    """
    backbone = denoiser.backbone
    if not isinstance(backbone, DenoisingNetwork) or not isinstance(backbone.network, DiffusersNetwork):
        return None
    word = next((word for kind, word in _PREDICTIONS if isinstance(backbone.target, kind)), None)
    if word is None:
        return None
    # Latents in patches are Flux's, whose pipeline tells the network a scale and compares by another one.
    call: dict[str, float] = {}
    packed = backbone.network.pack > 1
    if backbone.told_text:
        call = {"guidance_scale": GUIDANCE if packed else 1.0}
        if isinstance(guidance, (ClassifierFree, Distilled)):
            compared = packed and isinstance(guidance, ClassifierFree)
            call |= {"true_cfg_scale" if compared else "guidance_scale": guidance.scale}
            guidance = Unguided(guidance.output)
    part = "unet" if "UNet" in type(backbone.network.model).__name__ else "transformer"
    if isinstance(backbone.level, TimeInput) and not backbone.level.data_last and word == "flow_prediction":
        scheduler, same = _flow(backbone, denoiser.schedule, sampler, guidance, whole=packed)
    elif isinstance(backbone.level, Timestep):
        scheduler, same = _chain(backbone, denoiser.schedule, sampler, guidance, word)
    else:
        return None
    return StockModel(backbone.network.model, part, scheduler, same, sampler.steps, call)


def _shift(schedule: Schedule) -> float | None:
    if isinstance(schedule, Rectified):
        return 1.0
    if isinstance(schedule, Shifted) and isinstance(schedule.inner, Rectified):
        return float(torch.tensor(-schedule.shift / 2).exp())
    return None


def _flow(
    backbone: DenoisingNetwork, schedule: Schedule, sampler: Sampler, guidance: Guidance, *, whole: bool
) -> tuple[tuple[str, dict[str, Any]], bool]:
    """The scheduler of a straight path; `whole`: of a pipeline that names the times itself, down to one step's."""
    own, shift = _shift(backbone.schedule), _shift(schedule)
    spacing = sampler.spacing
    used = own if shift is None else shift
    used = 1.0 if used is None else used
    last = used * 0.001 / (1 + (used - 1) * 0.001)
    same = (
        shift is not None
        and isinstance(sampler.solver, Euler)
        and (
            isinstance(spacing, Time) and (spacing.first, spacing.power) == (1, 1)
            if whole
            else isinstance(spacing, Linspace) and abs(spacing.last - last) < 1e-9
        )
        and isinstance(guidance, Unguided)
        and not isinstance(guidance.output, (Clip, Dynamic))
    )
    return ("FlowMatchEulerDiscreteScheduler", {"shift": used, "num_train_timesteps": 1000}), same


def _chain(
    backbone: DenoisingNetwork, schedule: Schedule, sampler: Sampler, guidance: Guidance, word: str
) -> tuple[tuple[str, dict[str, Any]], bool]:
    level = backbone.level
    assert isinstance(level, Timestep)
    times = torch.arange(1, level.count + 1, dtype=torch.float64) / level.count
    alpha2 = backbone.schedule.path(backbone.schedule.logsnr(times)).alpha.square()
    betas = 1 - alpha2 / torch.cat([alpha2.new_ones(1), alpha2[:-1]])
    chain: dict[str, Any] = {
        "trained_betas": betas.tolist(),
        "num_train_timesteps": level.count,
        "prediction_type": word,
        "timestep_spacing": "trailing",
    }
    on_chain = torch.allclose(schedule.logsnr(times).exp(), backbone.schedule.logsnr(times).exp(), rtol=1e-6, atol=0)
    steps = isinstance(sampler.spacing, Time) and (sampler.spacing.first, sampler.spacing.power) == (1, 1)
    even = level.count % sampler.steps == 0
    plain = isinstance(guidance, Unguided)
    output = guidance.output if isinstance(guidance, Unguided) else None
    clip = {
        "clip_sample": isinstance(output, Clip),
        "clip_sample_range": output.bound if isinstance(output, Clip) else 1,
    }
    unclipped = not isinstance(output, (Clip, Dynamic))
    same = on_chain and steps and even and plain and sampler.deterministic(schedule)
    solver = sampler.solver
    if isinstance(solver, DPMpp2M):
        return ("DPMSolverMultistepScheduler", {**chain, "final_sigmas_type": "zero"}), same and unclipped
    if isinstance(solver, UniPC) and (solver.values, solver.variant, solver.correct) == (2, "bh2", True):
        return ("UniPCMultistepScheduler", {**chain, "final_sigmas_type": "zero"}), same and unclipped
    if isinstance(solver, Heun) and solver.quantity == "eps":
        return ("HeunDiscreteScheduler", chain), same and unclipped
    # A clipped x0 gives another eps in diffusers' DDIM than in ours.
    return ("DDIMScheduler", {**chain, **clip}), same and isinstance(solver, Euler) and unclipped
