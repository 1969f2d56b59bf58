"""The weaker model that autoguidance leads away from: another finished fit, or the model itself at an earlier step."""

from __future__ import annotations

import copy

from omegaconf import DictConfig

from diffsweep.diffusion import Denoiser
from diffsweep.mistakes import BadValue, below
from diffsweep.runs.load_fit import named_model
from diffsweep.scoring.sampling import Model
from diffsweep.scoring.score import EarlierModel
from diffsweep.scoring.weights import WeightsChoice
from diffsweep.settings import TrainingSettings

# What `guidance.weak` calls the model that is guided.
SELF = "self"


def weak_fit(cfg: DictConfig) -> Denoiser | None:
    """The finished fit at ``guidance.weak``, with its weights of ``guidance.step``; None if none is named.

    Raises:
        ValueError: if there is no such fit, or it has not kept that step.
    """
    return named_model(cfg, "guidance.weak", weights=_choice(cfg))


def earlier_self(cfg: DictConfig, model: Model, training: TrainingSettings | None) -> EarlierModel | None:
    """The model that is to be trained, as it will have been at an earlier step, if it is guided by that.

    Args:
        cfg: The config.
        model: Whose network is copied.
        training: How it is trained; None if it is imported.

    Raises:
        ValueError: if the training keeps no step, or there is none.
    """
    if cfg.guidance.get("weak") != SELF:
        return None
    if training is None:
        raise BadValue("guidance.weak", SELF, "is for models that are trained here: name another finished fit")
    return EarlierModel(copy.deepcopy(model.denoiser).requires_grad_(False).eval(), earlier_weights(cfg, training))


def earlier_weights(cfg: DictConfig, training: TrainingSettings) -> WeightsChoice:
    """The weights that a model which is guided by itself had before: of ``guidance.step``, or the earliest it keeps.

    Raises:
        ValueError: if the training keeps no step.
    """
    choice = _choice(cfg)
    if choice.step is not None:
        return choice
    if not training.kept_steps:
        rule = "keeps no earlier step to guide away from: set training.keep=[0.125], an eighth of the training"
        raise BadValue("training.keep", [], rule)
    return WeightsChoice(step=min(training.kept_steps))


def check(model: EarlierModel, training: TrainingSettings, weights: WeightsChoice) -> None:
    """Refuse a step that a training will not have kept, or that is not before that of the `weights` that are guided.

    Raises:
        ValueError: saying which to choose.
    """
    step, last = model.weights.step, weights.step if isinstance(weights.step, int) else training.steps
    with below("guidance"):
        model.weights.check(training.averages, training.kept_steps, training.steps, best=False)
        if not isinstance(step, int) or step >= last:
            raise BadValue("step", step, f"must be an earlier step than {last}, that of the model itself")


def _choice(cfg: DictConfig) -> WeightsChoice:
    with below("guidance"):
        return WeightsChoice(step=cfg.guidance.get("step"))
