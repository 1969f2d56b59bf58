"""What several test files share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import Cluster, need_slurm

# Programs that tests start; to collect their doctests would be to run them.
collect_ignore = ["programs"]

# A script that starts the tests in the background has them ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One SLURM cluster for all tests; they leave it as they found it: four nodes up, no jobs."""
    need_slurm()
    with Cluster() as cluster:
        yield cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: side by side (pytest -n), none of them is then left for the end."""
    long = ("slurm_faults", "slurm_sweep", "notebooks", "chaos", "sweep", "search", "runs", "slurm_submit", "conf")
    long += ("samplers", "slurm_cluster", "wandb", "studies", "compose", "readme", "metrics", "report", "validation")
    missing = [name for name in long if not Path(__file__).with_name(f"test_{name}.py").exists()]
    assert not missing, f"conftest.py orders files that are not there: {missing}"
    order = {name: place for place, name in enumerate(long)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(long)))
    if "whole" not in str(config.option.markexpr):
        left_out = [item for item in items if item.get_closest_marker("whole")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
