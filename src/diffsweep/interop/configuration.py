"""Foreign JSON files: plain values only, of a size that a config has, and nothing that could be run or looked up."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffsweep.files import read_bytes
from diffsweep.mistakes import did_you_mean, spell

# A config of diffusers has some kilobytes, with a list of a thousand betas some dozens.
_LARGEST = 2_000_000
_DEEPEST = 8
_LONGEST = 100_000
# Names of classes, modes, activations: nothing that a config would resolve or a path.
_WORD = re.compile(r"[\w .,:+/@()\[\]-]*", re.ASCII)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a foreign file.

    Raises:
        ValueError: in one line, if there is none, or it holds what no config does.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path} is no configuration: it has {path.stat().st_size:,} bytes")
        content = json.loads(read_bytes(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is no JSON: it is nested too deeply") from error
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """`value` if it is made of numbers, words, truth values, null and lists of them; mappings too, but not too deep.

    Raises:
        ValueError: naming what is none of these.
    """
    if depth > _DEEPEST:
        raise ValueError(f"{name} is nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        # Schedulers of diffusers have bounds that are infinite.
        if math.isnan(value) or (math.isfinite(value) and abs(value) >= 2**53):
            raise ValueError(f"{name}={spell(value)} is no number that a network has")
        return value
    if isinstance(value, str):
        if len(value) > 200 or not _WORD.fullmatch(value):
            raise ValueError(f"{name}={spell(value)} is no word that a network's configuration has")
        return value
    if isinstance(value, Sequence):
        if len(value) > _LONGEST:
            raise ValueError(f"{name} has {len(value):,} entries")
        return [plain(below, f"{name}[{i}]", depth + 1) for i, below in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z]\w*", key, re.ASCII):
                raise ValueError(f"{name} has the key {spell(key)}, which no configuration has")
        return {key: plain(below, f"{name}.{key}", depth + 1) for key, below in value.items()}
    raise ValueError(f"{name} is a {type(value).__name__}")


def refuse_unknown(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse the first key that is none of the known ones: it may change what the model is.

    Raises:
        ValueError: with the nearest known one.
    """
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(f"{what} has the key {spell(key)}, which is not known{did_you_mean(key, known)}")
