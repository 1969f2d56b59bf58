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
