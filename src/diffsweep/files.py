"""Every file appears whole or not at all: write beside it, fsync, rename.

Safe for readers on other hosts of a shared disk, for a writer that is killed at any moment (a hidden temporary
stays behind, which no reader looks at), and for a full disk (the old file stays as it was).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4


class CannotWriteError(ValueError):
    """The disk refused; the message is one line for the user. The `OSError` is its `__cause__`."""


_ELSEWHERE = "choose another folder with paths.runs=..."
_ADVICE = {
    errno.EROFS: f"read-only file system: {_ELSEWHERE}",
    errno.EACCES: f"no permission: {_ELSEWHERE}",
    errno.EPERM: f"no permission: {_ELSEWHERE}",
    errno.ENOSPC: f"the disk is full: free some space or {_ELSEWHERE}; finished runs are kept",
    errno.EDQUOT: f"your disk quota is used up: free some space or {_ELSEWHERE}; finished runs are kept",
    errno.EFBIG: f"the file would be larger than this system allows: {_ELSEWHERE}",
    errno.ENOTDIR: f"a part of this path is a file, not a folder: {_ELSEWHERE}",
    errno.EEXIST: f"a part of this path is a file, not a folder: {_ELSEWHERE}",
    errno.ENAMETOOLONG: f"the path is too long: {_ELSEWHERE}",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a refusal of the disk inside the block into `CannotWriteError` naming `path`; other errors pass."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        # A block may fail on another file, which it reads, say: that is not ours to explain.
        about_another = isinstance(error.filename, str) and not path.is_relative_to(Path(error.filename).parent)
        if advice is None or about_another:
            raise
        raise CannotWriteError(f"cannot write to {path}: {advice}") from error


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents where absent. Raises CannotWriteError."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, for a writer that wants a path; on leaving, it becomes `path`.

    The temporary ends like `path`, as picture writers choose the format by it. If the block raises, `path` stays as
    it was and the temporary is removed. Folders above are created. Raises CannotWriteError if the disk refuses.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem[:60]}.{_HOST}-{os.getpid()}-{uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        with explained(path):
            yield temporary
            _give_usual_rights(temporary)
            _sync(temporary)
            temporary.replace(path)
            _sync_folder(path.parent)
    except Exception as error:
        # Not every writer says OSError when the disk refuses: torch.save, for one, raises a RuntimeError.
        refusal = None if isinstance(error, ValueError) else _refusal(path.parent)
        if refusal is None:
            raise
        raise CannotWriteError(f"cannot write to {path}: {_ADVICE[refusal]}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Replace the file `path` by `content` (text as UTF-8) in one step. Raises CannotWriteError."""
    with atomic(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """`write_atomic` of `content` as indented JSON; NaN and infinity, which JSON does not have, are a ValueError."""
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any] | None:
    """The JSON object in the file `path`; None if there is no such file.

    Raises ValueError, naming the file, if it holds anything else, OSError if it cannot be read.
    """
    try:
        content = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is corrupt ({error}): move it away, and what it recorded is done again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is corrupt (no JSON object): move it away, and what it recorded is done again")
    return value


def read_bytes(path: str | Path) -> bytes:
    """The bytes of the file `path`, also while another host replaces it.

    Raises OSError if it cannot be read, or is no file: a pipe would be waited for without end.
    """
    for _ in range(4):
        try:
            return _read_bytes(path)
        except OSError as error:
            # NFS says so when the file was replaced between opening and reading.
            if error.errno != errno.ESTALE:
                raise
    return _read_bytes(path)


def _read_bytes(path: str | Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "this is no file", str(path))
        return stream.read()


def _give_usual_rights(path: Path) -> None:
    """Give a new file the rights that the umask leaves: some writers, such as that of safetensors, give fewer."""
    rights = 0o666 & ~_umask()
    if stat.S_IMODE(path.stat().st_mode) != rights:
        path.chmod(rights)


def _umask() -> int:
    try:
        # Asking the system changes nothing; os.umask would, for all threads.
        lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    # Some network file systems cannot sync a folder; the file itself is safe by now.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refusal(folder: Path) -> int | None:
    """Why nothing can be written to `folder` just now, as an errno; None if something can."""
    try:
        usage = shutil.disk_usage(folder)
        if os.access(folder, os.W_OK):
            return errno.ENOSPC if usage.total > 0 and usage.free < 2**16 else None
        return errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
    except OSError:
        return None


_HOST = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:32]
