"""A sweeper of Hydra, in a package hydra_plugins, that writes what its launcher returns to `returned.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class RecordingSweeper(BasicSweeper):
    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(None, params)

    def setup(self, **given: Any) -> None:
        super().setup(**given)
        assert self.launcher is not None
        launch = self.launcher.launch

        def recorded(batch: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
            with Path("returned.jsonl").open("a") as file:
                for back in launch(batch, initial_job_idx):
                    value = back._return_value
                    value = value if isinstance(value, float) else f"{type(value).__name__}: {value}"
                    row = {"overrides": back.overrides, "status": back.status.name, "value": value}
                    file.write(json.dumps(row) + "\n")
            return []

        self.launcher.launch = recorded  # type: ignore[method-assign]
