"""Guidance: denoiser -> denoiser, one idea per file; each is reached by ``_target_`` from ``conf/guidance``."""

from diffsweep.diffusion.guidance.autoguidance import Autoguidance
from diffsweep.diffusion.guidance.base import Guidance
from diffsweep.diffusion.guidance.cfgpp import CFGpp
from diffsweep.diffusion.guidance.classifier import ByClassifier
from diffsweep.diffusion.guidance.classifier_free import ClassifierFree
from diffsweep.diffusion.guidance.distilled import Distilled, ReadsGuidanceScale
from diffsweep.diffusion.guidance.dps import DPS
from diffsweep.diffusion.guidance.each import EachCondition
from diffsweep.diffusion.guidance.inpaint import Inpaint
from diffsweep.diffusion.guidance.interval import Interval
from diffsweep.diffusion.guidance.output import Clip, Dynamic, Keep, OutputMap
from diffsweep.diffusion.guidance.projected import Projected
from diffsweep.diffusion.guidance.rescaled import Rescaled
from diffsweep.diffusion.guidance.unguided import Unguided
from diffsweep.diffusion.guidance.zero_star import ZeroStar

__all__ = [
    "DPS",
    "Autoguidance",
    "ByClassifier",
    "CFGpp",
    "ClassifierFree",
    "Clip",
    "Distilled",
    "Dynamic",
    "EachCondition",
    "Guidance",
    "Inpaint",
    "Interval",
    "Keep",
    "OutputMap",
    "Projected",
    "ReadsGuidanceScale",
    "Rescaled",
    "Unguided",
    "ZeroStar",
]
