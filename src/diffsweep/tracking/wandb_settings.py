"""The settings of W&B runs: which project, whether online, and what is shown of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from diffsweep.sweep.store.environment import revealed

if TYPE_CHECKING:
    from diffsweep.tracking.loggers import WandbLogger
    from diffsweep.tracking.run_info import RunInfo

MODES = ("auto", "online", "offline")

# W&B refuses longer names, and these characters in that of a project.
LONGEST = 128
_NOT_IN_PROJECTS = "/\\#?%:"


@dataclass(frozen=True)
class WandbSettings:
    """Where fits and cells are shown in W&B, and what of them; called with a `RunInfo` it opens that W&B run.

    Attributes:
        project: W&B project.
        entity: W&B team or user; None is the user's default.
        mode: "online", "offline", or "auto": online if there is a key and the server answers within 3 s.
        samples_every: training steps between pictures of samples of the averaged weights, >= 1; None for none.
        samples: how many samples such a picture has, >= 1.
        artifact: whether to upload the averaged weights of a finished training.

    Raises:
        ValueError: for another mode, a project that W&B would refuse, or another value.
    """

    project: str = "diffsweep"
    entity: str | None = None
    mode: str = "auto"
    samples_every: int | None = None
    samples: int = 16
    artifact: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"logger mode={self.mode} is unknown: choose one of {', '.join(MODES)}")
        name = self.project
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST or set(name) & set(_NOT_IN_PROJECTS):
            raise ValueError(
                f"logger.wandb.project={name} names no W&B project: use text of 1 to {LONGEST} characters, none of "
                + " ".join(_NOT_IN_PROJECTS)
            )
        counts = {"samples": self.samples} | (
            {} if self.samples_every is None else {"samples_every": self.samples_every}
        )
        for key, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"logger.wandb.{key}={value} must be a whole number, 1 or more")
        if not isinstance(self.artifact, bool):
            raise ValueError(f"logger.wandb.artifact={self.artifact} must be true or false")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> WandbSettings | None:
        """The settings in a run's config; None if the run is not shown in W&B. Raises ValueError as the constructor."""
        entry = (config.get("logger") or {}).get("wandb")
        if not entry:
            return None
        entry = revealed(entry)
        return cls(**{name: entry[name] for name in (field.name for field in fields(cls)) if name in entry})

    def __call__(self, info: RunInfo) -> WandbLogger:
        """A logger of the W&B run that `info` names: the same run when a job resumes."""
        from diffsweep.tracking.loggers import WandbLogger
        from diffsweep.tracking.wandb_run import WandbRun

        return WandbLogger(WandbRun.open(info, self), info, self)
