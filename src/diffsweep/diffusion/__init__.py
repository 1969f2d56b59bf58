"""The mathematics of Gaussian diffusion: torch only, usable without any configuration.

The state is ``x_t = alpha x0 + sigma eps``; t = 0 is data, t = 1 is noise. One chain of nouns covers everything:

    Schedule.level(t) -> Level(alpha, sigma)        where on the path we stand
    Target.coefficients(level) -> (a, b)            the network regresses ``a x0 + b eps``
    Denoiser(backbone, schedule, target)            E[x0 | x_t]
    Diffuser(target, times, weight, loss)           the training objective
    Sampler(solver, spacing, nfe, noise)            the one loop that integrates back
"""

from diffsweep.diffusion.condition import Condition, Entry
from diffsweep.diffusion.denoiser import Denoise, Denoiser
from diffsweep.diffusion.diffuser import Diffuser
from diffsweep.diffusion.fitting import fit_spacing
from diffsweep.diffusion.inverse import invert
from diffsweep.diffusion.level import CLEAN, Level, exploding, preserving, straight
from diffsweep.diffusion.likelihood import bits_per_dimension, log_likelihood
from diffsweep.diffusion.noise import Leg, Noise
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.oracle import GaussianMixture
from diffsweep.diffusion.sampler import Sampler, Step
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import Solver
from diffsweep.diffusion.target import Target
from diffsweep.diffusion.transfer import renoise, transfer

__all__ = [
    "CLEAN",
    "Condition",
    "Denoise",
    "Denoiser",
    "Diffuser",
    "Entry",
    "GaussianMixture",
    "Leg",
    "Level",
    "Noise",
    "Objective",
    "Sampler",
    "Schedule",
    "Solver",
    "Step",
    "Target",
    "bits_per_dimension",
    "exploding",
    "fit_spacing",
    "invert",
    "log_likelihood",
    "preserving",
    "renoise",
    "straight",
    "transfer",
]
