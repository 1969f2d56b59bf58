"""What a training measured, one JSON line a step, without a gap or a doubled step across kills and resumes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from diffsweep.files import explained, make_folder, read_bytes, write_atomic


class Metrics:
    """The one writer of a `metrics.jsonl`. Lines are appended whole; nothing is buffered in the process.

    After a kill the file may hold steps beyond the checkpoint that training goes on from, and half a last line:
    `resume(step)` removes both. Use it as a context manager, or `close` it.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._descriptor: int | None = None

    def resume(self, step: int) -> None:
        """Forget all lines whose step is `step` or later (0 forgets all): training is about to do them again."""
        self.close()
        kept = [line for line in read_metrics(self._path) if line["step"] < step]
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, **values: float | int | str | None) -> None:
        """Append one line. NaN and infinity become null (JSON has neither). Raises CannotWriteError."""
        line = {"step": step} | {key: _finite(value) for key, value in values.items()}
        content = (json.dumps(line, allow_nan=False) + "\n").encode()
        with explained(self._path):
            if self._descriptor is None:
                self._descriptor = self._open()
            written = os.write(self._descriptor, content)
            while written < len(content):
                written += os.write(self._descriptor, content[written:])

    def close(self) -> None:
        """Put the lines on the disk and let go of the file; a later `write` opens it again."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                with explained(self._path):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        make_folder(self._path.parent)
        content = read_bytes(self._path) if self._path.exists() else b""
        if content and not content.endswith(b"\n"):
            write_atomic(self._path, content[: content.rfind(b"\n") + 1])
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All whole lines of a `metrics.jsonl`, in order; none if there is no file.

    Half a last line, as a killed writer leaves it, is left out. Raises ValueError naming the line for any other
    that is not a JSON object with a whole number `step`.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return []
    lines = []
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise ValueError(f"{path} is corrupt in line {number}: delete that line or the file")
        lines.append(line)
    return lines


def _finite(value: float | int | str | None) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
