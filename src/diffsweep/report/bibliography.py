"""BibTeX of the methods that a comparison used: which config option goes with which paper stands in references.bib.

An entry's field `options` names them, as `options = {sampler=ddim, sampler=euler}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from diffsweep.sweep.store.result import Result

_FILE = Path(__file__).parent / "assets" / "references.bib"


def bibtex(results: Sequence[Result], options: Iterable[str] = ()) -> str:
    """The entries of all options that any of the results names, and of `options`, in the file's order; "" if none."""
    used = {f"{key}={value}" for result in results for key, value in result.values.items() if isinstance(value, str)}
    words = (word for result in results for word in result.overrides.split())
    used |= {word.lstrip("+") for word in words} | set(options)
    return "\n\n".join(text for text, known in entries() if used & known)


@lru_cache(maxsize=1)
def entries() -> tuple[tuple[str, frozenset[str]], ...]:
    """Every entry of references.bib without its options, and these."""
    found = []
    for text in re.split(r"\n(?=@)", _FILE.read_text(encoding="utf-8").strip()):
        match = re.search(r"^  options = \{(.*)\},?\n", text, re.MULTILINE)
        assert match, text
        options = frozenset(word.strip() for word in match[1].split(",") if word.strip())
        found.append((text.replace(match[0], "").strip(), options))
    return tuple(found)
