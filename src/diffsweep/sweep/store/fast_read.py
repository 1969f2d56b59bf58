"""Reading ten thousand small files in a second: without what pathlib and the collector add, and next to no imports."""

from __future__ import annotations

import errno
import gc
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# A pipe would be waited for without end.
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)


def read_fast(path: str) -> tuple[bytes, os.stat_result]:
    """The bytes and the status of `path`, for readers of very many; also while another host replaces it."""
    for attempt in range(5):
        try:
            descriptor = os.open(path, os.O_RDONLY | _NO_WAITING)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "this is no file", path)
                content = os.read(descriptor, status.st_size + 1)
                while len(content) < status.st_size and (more := os.read(descriptor, status.st_size)):
                    content += more
            finally:
                os.close(descriptor)
            return content, status
        except OSError as error:
            # NFS says so when the file was replaced between opening and reading.
            if error.errno != errno.ESTALE or attempt == 4:
                raise
    raise AssertionError("the last attempt returns or raises")


def names(folder: str) -> set[str]:
    """What lies in a folder; nothing if there is none."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def read_object(path: str) -> dict[str, Any] | None:
    """The JSON object in a file, for readers of very many; None if there is none that can be read."""
    try:
        record = json.loads(read_fast(path)[0])
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


@contextmanager
def without_collector() -> Iterator[None]:
    """A block that reads very many records: the collector would walk them again and again, and they hold no circles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
