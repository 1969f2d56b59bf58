"""Models in the format of diffusers: each is sampled by us and by diffusers itself, from the same noise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

import checkpoints_made
from diffsweep.diffusion import Condition, Denoiser, Sampler
from diffsweep.diffusion.solvers import DPMpp2M, Euler, Heun, UniPC
from diffsweep.diffusion.spacing import Karras, Linspace, LogSNR, Spacing, Time
from diffsweep.interop.imported import Import
from diffsweep.runs.build import Components
from diffsweep.runs.instantiate import make
from diffsweep.sweep.plan.imported_options import with_imported_options

diffusers = pytest.importorskip("diffusers")

CONF = Path(__file__).parent.parent / "conf"
SAMPLES, STEPS = 3, 10
UNET, CONDITION, DIT, PIXART = (
    "UNet2DModel",
    "UNet2DConditionModel",
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
)
PLAIN = {
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "mid_block_type": None,
}


@dataclass(frozen=True)
class Made:
    """A folder that is to be made: class of its network and changes, class of its scheduler and changes."""

    network: str
    changes: dict[str, Any]
    scheduler: str
    settings: dict[str, Any]


CHAINS = {
    "unet eps linear": Made(UNET, {}, "DDPMScheduler", {"clip_sample": False}),
    "unet eps clipped": Made(UNET, {}, "DDIMScheduler", {}),
    "unet eps scaled_linear": Made(
        UNET, {}, "PNDMScheduler", {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    ),
    "unet eps squaredcos": Made(
        UNET, {}, "DDIMScheduler", {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False}
    ),
    "unet x0 squaredcos": Made(
        UNET,
        {},
        "DDPMScheduler",
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "clip_sample": False},
    ),
    "unet eps betas of its own": Made(
        UNET,
        {},
        "DDPMScheduler",
        {"trained_betas": [0.001 + 0.00003 * i for i in range(500)], "num_train_timesteps": 500, "clip_sample": False},
    ),
    "unet v zero SNR": Made(
        UNET,
        {},
        "DDIMScheduler",
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample": False},
    ),
    "unet v euler": Made(UNET, {}, "EulerDiscreteScheduler", {"prediction_type": "v_prediction"}),
    "unet eps 100 steps": Made(UNET, {}, "DDPMScheduler", {"num_train_timesteps": 100, "clip_sample": False}),
    "unet labels": Made(UNET, {"num_class_embeds": 10}, "DDPMScheduler", {"clip_sample": False}),
    "unet learned variance": Made(
        UNET, {"out_channels": 2}, "DDPMScheduler", {"variance_type": "learned_range", "clip_sample": False}
    ),
    "unet learned steps": Made(
        UNET,
        {"time_embedding_type": "learned", "num_train_timesteps": 1000},
        "LMSDiscreteScheduler",
        {"beta_schedule": "linear"},
    ),
    "unet large steps": Made(
        UNET, {"resnet_time_scale_shift": "scale_shift", "flip_sin_to_cos": False}, "UniPCMultistepScheduler", {}
    ),
    "conditional unet": Made(CONDITION, PLAIN, "DEISMultistepScheduler", {}),
    "conditional unet labels": Made(CONDITION, {**PLAIN, "num_class_embeds": 10}, "KDPM2DiscreteScheduler", {}),
    "dit eps": Made(DIT, {}, "DDIMScheduler", {"clip_sample": False}),
    "dit v": Made(DIT, {}, "DPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}),
    "pixart eps": Made(PIXART, {}, "DPMSolverMultistepScheduler", {"beta_schedule": "scaled_linear"}),
    "pixart learned variance": Made(PIXART, {"out_channels": 2}, "DPMSolverSinglestepScheduler", {}),
}
FLOWS = {
    "unet flow": Made(UNET, {}, "FlowMatchEulerDiscreteScheduler", {}),
    "unet flow shift 3": Made(UNET, {}, "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "dit flow": Made(DIT, {}, "FlowMatchHeunDiscreteScheduler", {}),
    "pixart flow shift 2": Made(PIXART, {}, "FlowMatchEulerDiscreteScheduler", {"shift": 2.0}),
    "unet flow unipc": Made(
        UNET,
        {},
        "UniPCMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
}
KARRAS = {
    "unet edm": Made(UNET, {}, "EDMEulerScheduler", {}),
    "unet edm v": Made(UNET, {}, "EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}),
    "unet edm exponential": Made(UNET, {}, "EDMEulerScheduler", {"sigma_schedule": "exponential", "sigma_data": 1.0}),
}
MADE = {**CHAINS, **FLOWS, **KARRAS}


@dataclass(frozen=True)
class Loaded:
    """A folder that was read: the network as diffusers has it, the same as our denoiser, and the scheduler."""

    folder: Path
    network: Any
    scheduler: Any
    denoiser: Denoiser
    cfg: Any


def composed(*words: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=with_imported_options(list(words)))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    known: dict[str, Loaded] = {}

    def load(name: str) -> Loaded:
        if name not in known:
            made = MADE[name]
            network = checkpoints_made.network(made.network, **made.changes)
            scheduler = getattr(diffusers, made.scheduler)(**made.settings)
            part = "transformer" if "Transformer" in made.network else "unet"
            folder = checkpoints_made.folder(tmp_path_factory.mktemp("folder"), network, scheduler, part)
            cfg = composed(f"pretrained={folder}", "dataset=digits", "trainer.threads=null")
            fitting = Components.of(cfg).fitting
            assert isinstance(fitting, Import)
            fitting.denoiser.backbone.load_state_dict(dict(fitting.read()[2]))
            known[name] = Loaded(folder, network, scheduler, fitting.denoiser.eval(), cfg)
        return known[name]

    return load


def started(seed: int = 0) -> torch.Tensor:
    return torch.randn(SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([3, 0, 9])


def peer(
    scheduler: Any, steps: int, x: torch.Tensor, model: Callable[..., torch.Tensor], **settings: Any
) -> torch.Tensor:
    """Samples as diffusers draws them, from x = noise times the scheduler's own start."""
    scheduler.set_timesteps(steps)
    x = x * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else x
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(seen, t), t, x, **settings).prev_sample
    return x


def foreign(found: Loaded) -> Callable[..., torch.Tensor]:
    """The network called as diffusers' pipelines call it."""
    network = found.network

    def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t.expand(len(x))
        if network.config.get("time_embedding_type") == "learned":
            # Schedulers in terms of noise have timesteps that are floats, which a table of embeddings does not take.
            t = t.long()
        name = type(network).__name__
        labelled = {"class_labels": LABELS} if found.cfg.backbone.network_classes else {}
        if name == DIT:
            y = network(x, timestep=t, **labelled).sample
        elif name == PIXART:
            y = network(x, timestep=t, added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample
        elif name == CONDITION:
            y = network(x, t, encoder_hidden_states=None, **labelled).sample
        else:
            y = network(x, t, **labelled).sample
        return y[:, :1]

    return call


def ours(
    found: Loaded, solver: Any, spacing: Spacing, nfe: int, x: torch.Tensor, *, double: bool = False
) -> torch.Tensor:
    denoiser, x = (copy.deepcopy(found.denoiser).double(), x.double()) if double else (found.denoiser, x)
    guided = make(found.cfg, "guidance")(denoiser, [])
    sampler = Sampler(solver, spacing, nfe)
    condition = Condition.of(label=LABELS) if found.cfg.backbone.network_classes else None
    return sampler(guided, x, schedule=found.denoiser.schedule, condition=condition)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def vp(found: Loaded) -> float:
    return found.denoiser.schedule.level(1.0).sigma


# Class of a scheduler, its settings, our solver, network calls, whether it starts from noise alone.
SOLVERS = {
    "DDIM": ("DDIMScheduler", {}, Euler(), STEPS, True),
    "Euler": ("EulerDiscreteScheduler", {}, Euler(), STEPS, False),
    "DPM++2M": ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}, DPMpp2M(), STEPS, True),
    "UniPC": ("UniPCMultistepScheduler", {"final_sigmas_type": "zero"}, UniPC(), STEPS, True),
    "Heun": ("HeunDiscreteScheduler", {}, Heun("eps"), 2 * STEPS - 1, False),
}
# There diffusers starts at noise of 4096 in the place of pure noise, and takes a slope from it.
CUT_SHORT = {("unet v zero SNR", "DPM++2M")}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", CHAINS)
@torch.no_grad()
def test_samples_of_a_chain_are_those_of_diffusers(name: str, solver: str, loaded: Callable[[str], Loaded]) -> None:
    found = loaded(name)
    kind, settings, own, nfe, from_noise = SOLVERS[solver]
    keys = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "num_train_timesteps", "prediction_type")
    known = {key: value for key, value in found.scheduler.config.items() if key in keys}
    clips = MADE[name].scheduler == "DDIMScheduler" and found.scheduler.config.clip_sample
    if clips and solver not in ("DDIM",):
        pytest.skip("other schedulers do not clip")
    if found.scheduler.config.get("rescale_betas_zero_snr"):
        if solver in ("UniPC", "Heun"):
            pytest.skip("this scheduler knows no zero terminal SNR")
        known["rescale_betas_zero_snr"] = True
    if solver == "DDIM":
        settings = {**settings, "clip_sample": clips, "set_alpha_to_one": True}
    scheduler = getattr(diffusers, kind)(**known, **settings, timestep_spacing="trailing")
    noise = started()
    # Where x0 is clipped, eps is that of the clipped x0: DDPM's formula has it so, DDIM's on request.
    theirs = peer(scheduler, STEPS, noise, foreign(found), **({"use_clipped_model_output": True} if clips else {}))
    start = noise / vp(found) if from_noise else noise
    mine = ours(found, own, Time(), nfe, start)
    deviation = difference(mine, theirs)
    if (name, solver) in CUT_SHORT:
        assert deviation < 1e-3
    elif deviation >= 1e-4:
        # Who is right is told by double precision: noise of 2e4 leaves single precision little of the data.
        exact = ours(found, own, Time(), nfe, start, double=True)
        assert difference(mine.double(), exact) < 1e-3


@pytest.mark.parametrize("name", FLOWS)
@torch.no_grad()
def test_samples_of_a_flow_are_those_of_diffusers(name: str, loaded: Callable[[str], Loaded]) -> None:
    found = loaded(name)
    settings = found.scheduler.config
    shift = settings.get("shift") or settings.get("flow_shift") or 1.0
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs = peer(scheduler, STEPS, started(), foreign(found))
    # It shifts its last time twice.
    last = shift * 0.001 / (1 + (shift - 1) * 0.001)
    mine = ours(found, Euler(), Linspace(last), STEPS, started())
    assert difference(mine, theirs) < 1e-4


@pytest.mark.parametrize("name", KARRAS)
@pytest.mark.parametrize("solver", ["EDM Euler", "EDM DPM++2M"])
@torch.no_grad()
def test_samples_of_edm_are_those_of_diffusers(name: str, solver: str, loaded: Callable[[str], Loaded]) -> None:
    found = loaded(name)
    settings = {key: value for key, value in found.scheduler.config.items() if key.startswith(("sigma_", "prediction"))}
    kind, own = {
        "EDM Euler": (diffusers.EDMEulerScheduler, Euler()),
        "EDM DPM++2M": (diffusers.EDMDPMSolverMultistepScheduler, DPMpp2M()),
    }[solver]
    scheduler = kind(**settings)
    theirs = peer(scheduler, STEPS, started(), foreign(found))
    spacing = LogSNR(1.0, 0.002, 80.0) if settings["sigma_schedule"] == "exponential" else Karras()
    # It starts as if the data had a share in the first state.
    start = started() * (scheduler.init_noise_sigma / 80.0)
    mine = ours(found, own, spacing, STEPS, start)
    assert difference(mine, theirs) < 1e-4


def test_there_are_folders_enough() -> None:
    assert len(MADE) >= 20
