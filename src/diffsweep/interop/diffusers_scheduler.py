"""A scheduler of diffusers: which schedule and target it stands for, read from the object that diffusers builds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from diffsweep.interop.configuration import plain, refuse_unknown
from diffsweep.interop.diffusers_network import _ABOUT, _line, _quiet, require
from diffsweep.interop.process import LEVELS, OUTPUTS, SCHEDULES, Node, Process, SizeShift, negative, shifted, target
from diffsweep.mistakes import alternatives, did_you_mean, spell

# What else may be wrong with a table that agrees with a formula, in log(alpha^2).
_ALIKE = 2e-5


def read_scheduler(config: Mapping[str, Any], name: str | None = None) -> Process:
    """The process of a scheduler_config.json.

    Raises:
        ValueError: for a scheduler of discrete data, one that is not known, a key that it does not take.
    """
    name = str(name or config.get("_class_name"))
    schedulers: Any = require().schedulers
    known = [one for one in dir(schedulers) if one.endswith("Scheduler")]
    # One old name is listed and not there.
    scheduler_class = getattr(schedulers, name, None) if name in known else None
    if scheduler_class is None:
        near = did_you_mean(name, known) or f": {len(known)} are known, DDPMScheduler among them"
        raise ValueError(f"there is no scheduler {spell(name)} in diffusers{near}")
    arguments = {key: plain(value, key) for key, value in config.items() if key not in _ABOUT}
    taken = [key for key in inspect.signature(scheduler_class.__init__).parameters if key not in ("self", "kwargs")]
    refuse_unknown(arguments, taken, f"the scheduler_config.json of {name}")
    count = arguments.get("num_train_timesteps", 1000)
    if not isinstance(count, int) or not 1 <= count <= 100_000:
        raise ValueError(f"num_train_timesteps={spell(count)} must be a whole number from 1 to 100000")
    with _quiet():
        try:
            scheduler = scheduler_class(**arguments)
        except Exception as error:
            raise ValueError(f"{name} cannot be built of its scheduler_config.json: {_line(error)}") from error
    # All parameters with their values, as one old scheduler has no config.
    settings = dict(getattr(scheduler, "config", None) or arguments)
    for reader in (_straight, _karras, _exploding, _chain):
        process = reader(scheduler, settings, name)
        if process is not None:
            return process
    raise ValueError(
        f"{name} is no scheduler of Gaussian noise whose levels are known: export the model with DDPMScheduler, "
        "EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler or EDMEulerScheduler"
    )


def _output(settings: Mapping[str, Any]) -> tuple[Node, tuple[str, ...]]:
    bound = settings.get("sample_max_value", 1.0)
    if settings.get("thresholding"):
        quantile = settings.get("dynamic_thresholding_ratio", 0.995)
        # There the bound is a limit of the quantile, and data lie in [-1, 1].
        return {"_target_": f"{OUTPUTS}.Dynamic", "quantile": quantile, "bound": 1.0}, ("dynamic thresholding",)
    if settings.get("clip_sample") or settings.get("clip_denoised"):
        largest = settings.get("clip_sample_range", 1.0) if settings.get("clip_sample") else bound
        return {"_target_": f"{OUTPUTS}.Clip", "bound": float(largest)}, (f"x0 clipped to {float(largest):g}",)
    return {"_target_": f"{OUTPUTS}.Keep"}, ()


_PREDICTIONS = {
    "epsilon": ("Eps", "eps"),
    "sample": ("X0", "x0"),
    "v_prediction": ("V", "v"),
    "flow_prediction": ("Flow", "flow"),
}


def _predicts(settings: Mapping[str, Any], name: str) -> tuple[Node, str]:
    word = settings.get("prediction_type", "epsilon")
    if word not in _PREDICTIONS:
        raise ValueError(f"prediction_type={spell(word)} of {name} must be {alternatives(_PREDICTIONS)}")
    kind, short = _PREDICTIONS[word]
    return target(kind), short


def _straight(scheduler: Any, settings: Mapping[str, Any], name: str) -> Process | None:
    """Flow matching: the straight path with a shift."""
    matches = "use_dynamic_shifting" in settings and "prediction_type" not in settings
    is_flow = "FlowMatch" in name or matches
    if not is_flow and not settings.get("use_flow_sigmas") and settings.get("prediction_type") != "flow_prediction":
        return None
    if settings.get("invert_sigmas"):
        raise ValueError(f"{name} with invert_sigmas runs from data to noise, which is not read")
    shift = settings.get("shift") if is_flow else settings.get("flow_shift")
    shift = 1.0 if shift is None else float(shift)
    notes = ["straight path", "predicts flow"]
    by_size = _by_size(settings, name) if settings.get("use_dynamic_shifting") else None
    if by_size is not None:
        shift = 1.0
        notes.append("a shift that depends on the size of the picture")
    elif shift != 1:
        notes.append(f"shift {shift:g}")
    if not shift > 0:
        raise ValueError(f"shift={shift} of {name} must be above 0")
    predicts, short = (target("Flow"), "flow") if is_flow else _predicts(settings, name)
    if short not in ("flow", "x0"):
        raise ValueError(f"{name} with flow sigmas and prediction_type={settings['prediction_type']} is not read")
    notes[1] = f"predicts {short}"
    straight: Node = {"_target_": f"{SCHEDULES}.rectified.Rectified"}
    path = straight if shift == 1 else shifted(straight, shift)
    level = {
        "_target_": f"{LEVELS}.Time",
        "scale": float(settings.get("num_train_timesteps", 1000)),
        "data_last": False,
    }
    output, clipped = _output(settings)
    return Process(path, predicts, level, "path", 0.5, output, (*notes, *clipped), by_size)


def _by_size(settings: Mapping[str, Any], name: str) -> SizeShift:
    """A shift that a pipeline works out from the number of its tokens."""
    lengths = [settings.get("base_image_seq_len", 256), settings.get("max_image_seq_len", 4096)]
    shifts = [settings.get("base_shift", 0.5), settings.get("max_shift", 1.15)]
    kind = settings.get("time_shift_type", "exponential")
    known = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (*lengths, *shifts))
    if not known or not 0 < lengths[0] < lengths[1] or kind not in ("exponential", "linear"):
        raise ValueError(f"{name} has a dynamic shift that is not read: {spell([*lengths, *shifts, kind])}")
    if settings.get("shift_terminal"):
        raise ValueError(f"{name} with shift_terminal={spell(settings['shift_terminal'])} is not read")
    return SizeShift(*map(int, lengths), *map(float, shifts), exponential=kind == "exponential")


def _karras(scheduler: Any, settings: Mapping[str, Any], name: str) -> Process | None:
    """EDM's preconditioning: alpha = 1, the network sees c_in x and c_noise."""
    if not all(hasattr(scheduler, f"precondition_{what}") for what in ("inputs", "noise", "outputs")):
        return None
    low, high, width = (float(settings[key]) for key in ("sigma_min", "sigma_max", "sigma_data"))
    if not 0 < low < high or not width > 0:
        raise ValueError(f"{name} must have 0 < sigma_min < sigma_max and sigma_data > 0, not {low}, {high}, {width}")
    schedule: Node = {"_target_": f"{SCHEDULES}.ve.VE", "sigma_min": low, "sigma_max": high}
    if settings.get("sigma_schedule") == "karras":
        rho = float(settings["rho"])
        schedule = {"_target_": f"{SCHEDULES}.karras.Karras", "rho": rho, "sigma_min": low, "sigma_max": high}
    predicts = target("EDM", sigma_data=width)
    word = settings.get("prediction_type", "epsilon")
    if word not in ("epsilon", "v_prediction"):
        raise ValueError(f"prediction_type={spell(word)} of {name} must be epsilon or v_prediction")
    # Asked at one level, for one of them tells an angle.
    noise = scheduler.precondition_noise(torch.tensor([2.0]))
    log = torch.isclose(noise, torch.tensor([2.0]).log() / 4).all()
    level = {"_target_": f"{LEVELS}.Sigma", "form": "quarter_log" if log else "angle"}
    output, clipped = _output(settings)
    return Process(
        schedule,
        predicts if word == "epsilon" else negative(predicts),
        level,
        "data",
        width,
        output,
        (f"noise from {low:g} to {high:g}", f"EDM's preconditioning for data of {width:g}", *clipped),
    )


def _exploding(scheduler: Any, settings: Mapping[str, Any], name: str) -> Process | None:
    """Song's VE-SDE: the network sees x and sigma, and predicts the score itself."""
    if hasattr(scheduler, "alphas_cumprod") or not {"sigma_min", "sigma_max", "snr"} <= set(settings):
        return None
    low, high = float(settings["sigma_min"]), float(settings["sigma_max"])
    return Process(
        {"_target_": f"{SCHEDULES}.ve.VE", "sigma_min": low, "sigma_max": high},
        {"_target_": "diffsweep.interop.targets.PlainScore"},
        {"_target_": f"{LEVELS}.Sigma", "form": "noise"},
        "path",
        0.5,
        {"_target_": f"{OUTPUTS}.Keep"},
        (f"noise from {low:g} to {high:g}", "predicts the score"),
    )


def _chain(scheduler: Any, settings: Mapping[str, Any], name: str) -> Process | None:
    """A chain of betas."""
    table = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(table, torch.Tensor) or table.ndim != 1 or len(table) < 1:
        return None
    alpha2 = table.double()
    if not bool(((alpha2[:-1] > 0) & (alpha2[:-1] < 1)).all()) or not 0 <= float(alpha2[-1]) < 1:
        raise ValueError(f"the betas of {name} leave nothing of the data, or add no noise")
    if not bool((alpha2.diff() < 0).all()):
        raise ValueError(f"the betas of {name} must make the noise grow from step to step")
    predicts, short = _predicts(settings, name)
    schedule, words = _table(alpha2, settings, short)
    level = {"_target_": f"{LEVELS}.Timestep", "count": len(table), "whole": False}
    output, clipped = _output(settings)
    # Schedulers in terms of sigma / alpha scale x to this, which it is already.
    return Process(
        schedule,
        predicts,
        level,
        "unit",
        1.0,
        output,
        (f"{len(table)} steps of {words}", f"predicts {short}", *clipped),
    )


def _table(alpha2: torch.Tensor, settings: Mapping[str, Any], short: str) -> tuple[Node, str]:
    from diffsweep.diffusion.schedules import linear_betas, scaled_linear_betas
    from diffsweep.interop.betas import cosine_betas

    count = len(alpha2)
    ends = {"beta_start": settings.get("beta_start"), "beta_end": settings.get("beta_end"), "steps": count}
    chains = {
        "linear": (linear_betas, f"{SCHEDULES}.linear.linear_betas", ends),
        "scaled_linear": (scaled_linear_betas, f"{SCHEDULES}.linear.scaled_linear_betas", ends),
        "squaredcos_cap_v2": (
            cosine_betas,
            "diffsweep.interop.betas.cosine_betas",
            {"steps": count, "beta_max": 0.999},
        ),
    }
    word = str(settings.get("beta_schedule"))
    make, path, arguments = chains.get(word, (None, "", {}))
    # A network that predicts eps has nothing to say where nothing of the data is left.
    ends_in_noise = float(alpha2[-1]) < 1e-7 and short != "eps"
    if make is not None and settings.get("trained_betas") is None:
        try:
            known = make(**arguments).log_alpha2[1:].exp()  # type: ignore[operator]
        except (TypeError, ValueError):
            known = alpha2.new_zeros(0)
        if len(known) == count:
            chain: Node = {"_target_": path, **arguments}
            if _alike(known, alpha2):
                return chain, f"{word} betas"
            if ends_in_noise and count > 1:
                roots = known.sqrt()
                moved = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))).square()
                if _alike(moved[:-1], alpha2[:-1]):
                    zero = {"_target_": f"{SCHEDULES}.zero_snr.ZeroSNR", "inner": chain, "first": 1 / count}
                    return zero, f"{word} betas, zero terminal SNR"
    betas = 1 - alpha2 / torch.cat([alpha2.new_ones(1), alpha2[:-1]])
    # A table cannot end in pure noise; this is as near as single precision knows.
    last = float(betas[-1].clamp(max=1 - 2.0**-24))
    return {"_target_": f"{SCHEDULES}.tabulated.Tabulated", "betas": [*betas[:-1].tolist(), last]}, "betas of its own"


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return len(a) == len(b) and bool((b > 0).all()) and bool(((a.log() - b.log()).abs() < _ALIKE * (1 - b.log())).all())
