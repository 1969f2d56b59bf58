"""A user's callback of Hydra that writes each event to `heard.jsonl` of the folder that the user stands in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Listener(Callback):
    def note(self, event: str, config: DictConfig, **more: Any) -> None:
        with (Path(config.hydra.runtime.cwd) / "heard.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.note("multirun_start", config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.note("multirun_end", config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        hydra = config.hydra
        self.note(
            "job_start",
            config,
            num=hydra.job.num,
            task=list(hydra.overrides.task),
            choices=dict(hydra.runtime.choices),
            steps=config.training.steps,
            solver=config.sampler.solver._target_,
        )

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        value = job_return._return_value
        value = value if isinstance(value, float) else str(value)
        self.note("job_end", config, num=config.hydra.job.num, status=job_return.status.name, value=value)
