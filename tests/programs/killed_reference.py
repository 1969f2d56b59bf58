"""Computes a reference like that of test_reference.py, and is killed when so many pictures have been looked at.

python killed_reference.py CACHE PICTURES
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from torch import Tensor

from test_reference import Means, library, pictures


class Mortal(Means):
    """The network of the test, which does not survive the picture of this number."""

    def forward(self, x: Tensor) -> Tensor:
        if self.seen >= int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


library(Mortal(), Path(sys.argv[1]), save_seconds=0.0).reference(pictures())
