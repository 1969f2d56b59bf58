"""A hook of mkdocs: what a page of docs/ says of files outside of it is text on the site, and must be there.

On the site such a file has no page; in the repository the same link leads to it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
_OUTSIDE = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[^)\s#]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page without links that leave docs/. Raises FileNotFoundError for one to a file that is not there."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def text(link: re.Match[str]) -> str:
        picture, words, path = link.groups()
        target = Path(os.path.normpath(folder / path))
        if not target.exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {path}")
        name = target.relative_to(ROOT).as_posix()
        said = words.strip("`")
        return f"*{said}* (`{name}`)" if picture or said not in (name, f"{name}/") else f"`{name}`"

    return _OUTSIDE.sub(text, markdown)
