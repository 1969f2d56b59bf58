"""What several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurm import Cluster, need_slurm


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One SLURM cluster for all tests; they leave it as they found it: four nodes up, no jobs."""
    need_slurm()
    with Cluster() as cluster:
        yield cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: side by side (pytest -n), none of them is then left for the end."""
    long = ("test_slurm_sweep", "test_slurm_faults", "test_chaos", "test_sweep", "test_search", "test_slurm_submit")
    order = {name: place for place, name in enumerate(long)}
    items.sort(key=lambda item: order.get(item.path.stem, len(long)))
