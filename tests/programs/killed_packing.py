"""Packs a collection, and is killed when so many of its members have been decoded.

python killed_packing.py PATH KIND CACHE MEMBERS
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from diffsweep.data import packing
from test_packing import DECODERS

path, kind, cache, members = sys.argv[1:]
decoder = DECODERS[kind]
decode = type(decoder).decode
decoded: list[Any] = []


def mortal(self: Any, content: Any) -> Any:
    decoded.append(None)
    if len(decoded) > int(members):
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(self, content)


type(decoder).decode = mortal
packing._AT_A_TIME, packing._REPORT_SECONDS = 16, 0.0
packing.pack(Path(path), packing.Packing(decoder), Path(cache))
