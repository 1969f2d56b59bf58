"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from slurm import Cluster, missing


def need_slurm() -> None:
    """Leave a test out where no cluster can be started; where CI is set, fail it instead."""
    reason = missing()
    if reason is not None and "CI" in os.environ:
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One SLURM cluster for all tests; they leave it as they found it: four nodes up, no jobs."""
    need_slurm()
    with Cluster() as cluster:
        yield cluster
