"""torchmetrics, imported as far as it is used: Lightning needs two of its classes, and all of it costs two seconds.

`import lightning` imports torchmetrics for `Metric` and `MetricCollection`. The package imports every metric with it,
and with those scipy.signal, torchvision and, where it is installed, transformers.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "torchmetrics"
# What Lightning imports, and where it lies.
_LIGHT: Final = {"Metric": f"{_PACKAGE}.metric", "MetricCollection": f"{_PACKAGE}.collections"}


class _LazyPackage(ModuleType):
    """The package before its own `__init__` has run, which any other name than those of `_LIGHT` runs."""

    def __init__(self, loader: Loader) -> None:
        super().__init__(_PACKAGE)
        self._own_loader = loader
        # The thread that is just importing a class of `_LIGHT`, or 0.
        self._lock, self._inside = threading.RLock(), 0
        # The modules of those classes ask for it.
        self._logger = logging.getLogger(_PACKAGE)

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return importlib.metadata.version(_PACKAGE)
        if self._inside == threading.get_ident() or (name.startswith("__") and name != "__all__"):
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
        with self._lock:
            if name in _LIGHT:
                self._inside = threading.get_ident()
                try:
                    importlib.import_module(f"{_PACKAGE}.utilities")
                    return getattr(importlib.import_module(_LIGHT[name]), name)
                except ImportError:
                    # Another version, whose classes need more of the package.
                    pass
                finally:
                    self._inside = 0
            if type(self) is _LazyPackage:
                object.__setattr__(self, "__class__", ModuleType)
                self._own_loader.exec_module(self)
        return getattr(self, name)


class _LazyLoader(Loader):
    """Makes the package without running anything of it."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LazyPackage(self._own)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._own


class _Finder(MetaPathFinder):
    """Finds the package where everyone does, once, and gives it the loader above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PACKAGE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec.loader)
        return spec


def import_lazily() -> None:
    """Let `import torchmetrics` give a package that runs its `__init__` when it is first needed."""
    if _PACKAGE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
