"""What several test files share."""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import Cluster, need_slurm

# Programs that tests start; to collect their doctests would be to run them.
collect_ignore = ["programs"]

# A script that starts the tests in the background has them ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Gather what tests, and the processes that they start, leave in the folder of temporary files."""
    ordinary = tempfile.gettempdir()
    # Where pytest keeps the folders of the last tests, and torch what it has compiled.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", ordinary)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{ordinary}/torchinductor_{getpass.getuser()}")
    # A short path: below it lie sockets.
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="tests-")
    # Jobs of SLURM may belong to others.
    os.chmod(tempfile.tempdir, 0o755)  # noqa: PTH101
    # Not earlier: multiprocessing, which is imported later, ends before.
    atexit.register(_remove, tempfile.tempdir, os.getpid())


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One SLURM cluster for all tests; they leave it as they found it: four nodes up, no jobs."""
    need_slurm()
    with Cluster() as cluster:
        yield cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: side by side (pytest -n), none of them is then left for the end."""
    long = ("slurm_faults", "slurm_sweep", "latent_sweep", "notebooks", "sweep", "chaos", "installed", "search")
    long += ("slurm_queue", "conf", "samplers", "metrics", "hub", "signature_list", "slurm_submit", "python_api")
    long += ("compose", "wandb", "slurm_cluster", "runs", "autoencoders", "gpu_benchmark", "scalar_walk")
    long += ("interop_text", "interop_samplers", "interop", "own_dataset", "weights_sweep", "served_report", "custom")
    long += ("option_keys", "couplings", "studies", "readme", "report", "validation", "evaluation", "unread_keys")
    missing = [name for name in long if not Path(__file__).with_name(f"test_{name}.py").exists()]
    assert not missing, f"conftest.py orders files that are not there: {missing}"
    order = {name: place for place, name in enumerate(long)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(long)))
    if "whole" not in str(config.option.markexpr):
        left_out = [item for item in items if item.get_closest_marker("whole")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
