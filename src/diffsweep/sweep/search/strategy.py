"""The strategy of a search: the sampler that chooses parameters, and the pruner that stops bad trials early."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "nsgaii": "NSGAIISampler",
    "grid": "RandomSampler",
    "qmc": "QMCSampler",
}
PRUNERS = ("none", "asha", "median")
# Samplers that ignore results, so that all trials are known before the first one runs.
_AHEAD = ("grid", "random", "qmc")


@dataclass(frozen=True)
class Strategy:
    """How a search chooses the parameters of its trials, and which trials it stops early.

    Attributes:
        sampler: `name`, one of SAMPLERS, and arguments of its Optuna class.
        pruner: `name`, one of PRUNERS, and its settings, as in conf/hydra/sweeper/pruner.
        seed: Of the sampler; None draws one.

    Raises:
        ValueError: in one line, for an unknown name or a setting that Optuna does not take.
    """

    sampler: Mapping[str, Any] = field(default_factory=lambda: {"name": "tpe"})
    pruner: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    seed: int | None = None

    def __post_init__(self) -> None:
        check_known("sampler", self.sampler.get("name"), SAMPLERS)
        check_known("pruner", self.pruner.get("name"), PRUNERS)
        self.make_sampler("")
        self.make_pruner()

    @property
    def is_grid(self) -> bool:
        """Whether the trials are all combinations of values."""
        return self.sampler["name"] == "grid"

    @property
    def knows_trials_ahead(self) -> bool:
        """Whether the parameters of all trials are known before the first one runs."""
        return self.sampler["name"] in _AHEAD

    @property
    def prunes(self) -> bool:
        """Whether trials may be stopped early."""
        return self.pruner["name"] != "none"

    def check_objectives(self, count: int) -> None:
        """Raise ValueError if the sampler or pruner cannot work with `count` objectives."""
        if count > 1 and self.prunes:
            raise ValueError(f"pruner={self.pruner['name']} judges by one objective, not {count}")
        if count > 1 and self.sampler["name"] == "cmaes":
            raise ValueError("sampler=cmaes has one objective: choose nsgaii, tpe or gp for several")

    def make_sampler(self, salt: str) -> BaseSampler:
        """Optuna's sampler; `salt` makes its random numbers differ between processes. Raises ValueError."""
        import optuna

        options = {key: value for key, value in self.sampler.items() if key != "name"}
        name = str(self.sampler["name"])
        seed = None
        if self.seed is not None:
            digest = hashlib.blake2b(f"{self.seed}/{salt}".encode(), digest_size=4).hexdigest()
            seed = int(digest, 16)
        if name == "qmc":
            options["warn_asynchronous_seeding"] = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return getattr(optuna.samplers, SAMPLERS[name])(seed=seed, **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"sampler={name}: {error}") from error

    def make_pruner(self) -> BasePruner:
        """Optuna's pruner. Raises ValueError for settings that it does not take."""
        from optuna import pruners

        name = self.pruner["name"]
        if name == "none":
            return pruners.NopPruner()
        try:
            first, factor = self.pruner.get("min_steps") or 1, self.pruner["reduction_factor"]
            if not isinstance(factor, int) or factor < 2:
                raise ValueError(f"reduction_factor={factor} must be a whole number, 2 or more")
            if not isinstance(self.pruner["samples"], int) or self.pruner["samples"] < 2:
                raise ValueError(f"samples={self.pruner['samples']} must be a whole number, 2 or more")
            if name == "asha":
                return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
            return pruners.MedianPruner(n_startup_trials=self.pruner["startup_trials"])
        except KeyError as error:
            raise ValueError(f"pruner={name} lacks {error}: choose it by hydra/sweeper/pruner={name}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"pruner={name}: {error}") from error

    def rungs(self, steps: int) -> tuple[int, ...]:
        """The training steps after which a trial of `steps` steps is judged; none without a pruner.

        min_steps times powers of the reduction factor; min_steps=null stands for steps / factor^3.
        """
        if not self.prunes:
            return ()
        factor = self.pruner["reduction_factor"]
        rung = self.pruner.get("min_steps") or max(1, steps // factor**3)
        found = []
        while rung < steps:
            found.append(rung)
            rung *= factor
        return tuple(found)


def check_known(name: str, value: Any, valid: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise ValueError if `value` is none of the `valid` ones."""
    if value not in valid:
        raise ValueError(f"{name}={value} is unknown: choose one of {', '.join(valid)}")
