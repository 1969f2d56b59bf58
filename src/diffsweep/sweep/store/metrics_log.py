"""What a training measured, one JSON line a step, without a gap or a doubled step across kills and resumes."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from diffsweep.files import CannotWriteError, explained, make_folder, read_bytes, write_atomic

# Bytes.
_MOST_PENDING = 2**20


class Metrics:
    """The one writer of a `metrics.jsonl`. Lines are appended whole; nothing is buffered in the process.

    After a kill the file may hold steps beyond the checkpoint that training goes on from, and half a last line:
    `resume(step)` removes both. Use it as a context manager, or `close` it.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._descriptor: int | None = None
        # What a full disk has not taken so far.
        self._pending = b""

    def resume(self, step: int) -> None:
        """Forget all lines whose step is `step` or later (0 forgets all): training is about to do them again."""
        self.close()
        kept = [line for line in read_metrics(self._path) if line["step"] < step]
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, **values: float | int | str | None) -> None:
        """Append one line. NaN and infinity become null (JSON has neither).

        A disk that is full keeps lines waiting for the next one, or for `close`. Raises CannotWriteError.
        """
        line = {"step": step} | {key: _finite(value) for key, value in values.items()}
        self._pending += (json.dumps(line, allow_nan=False) + "\n").encode()
        try:
            self._flush()
        except CannotWriteError as error:
            cause = error.__cause__
            full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or len(self._pending) > _MOST_PENDING:
                raise

    def _flush(self) -> None:
        with explained(self._path):
            if self._descriptor is None:
                self._descriptor = self._open()
            while self._pending:
                self._pending = self._pending[os.write(self._descriptor, self._pending) :]

    def close(self) -> None:
        """Put the lines on the disk and let go of the file; a later `write` opens it again."""
        if self._descriptor is not None or self._pending:
            try:
                self._flush()
            finally:
                self._sync()

    def _sync(self) -> None:
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
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise ValueError(f"{path} is corrupt in line {number}: move the file away, and its steps are done again")
        lines.append(line)
    return lines


def _finite(value: float | int | str | None) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
