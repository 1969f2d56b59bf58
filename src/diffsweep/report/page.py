"""One HTML file that answers which choice won, by how much, and what it looks like: it needs no network and no server.

The data go into the page as JSON, the scripts (plotly.js draws, Tabulator tabulates) beside them; what the page shows
is made of both in the browser. Jinja escapes all text, the page's own script writes text nodes only.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from diffsweep.files import write_atomic
from diffsweep.report import export
from diffsweep.report.bibliography import bibtex
from diffsweep.report.comparison import Comparison
from diffsweep.report.page_data import page_data

# Characters of data above which a page holds them compressed.
_PLAIN = 2_000_000

ASSETS = Path(__file__).parent / "assets"


def write(comparison: Comparison, file: Path, metric: str | None = None) -> None:
    """Write the report to `file`, whole or not at all.

    Args:
        comparison: what it is about.
        file: of the page.
        metric: number to rank by; None for each cell's main one.

    Raises:
        ValueError: for a number that no result has, CannotWriteError.
    """
    write_atomic(file, render(comparison, metric))


def render(comparison: Comparison, metric: str | None = None, *, live: str = "", scripts: bool = True) -> str:
    """The page; arguments and errors as `write`.

    Args:
        comparison: what it is about.
        metric: number to rank by; None for each cell's main one.
        live: of a page that is served and asks its server for what is new, the version of its data.
        scripts: whether scripts and styles are in it; else only the parts and the data that change.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    data = page_data(comparison, metric)
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)

    def asset(name: str) -> Markup:
        if not scripts:
            return Markup()
        # An end tag inside of a script would end it.
        return Markup((ASSETS / name).read_text(encoding="utf-8").replace("</script", "<\\/script"))

    text = _json(data)
    packed = base64.b64encode(gzip.compress(text.encode(), 6)).decode() if len(text) > _PLAIN else ""
    return environment.get_template("page.html").render(
        comparison=comparison,
        data=data,
        json=Markup(packed or text),
        packed=bool(packed),
        asset=asset,
        made=time.strftime("%Y-%m-%d %H:%M"),
        downloads=list(_downloads(comparison)),
        bibtex=bibtex(comparison.results, comparison.options),
        live=live,
    )


def _downloads(comparison: Comparison) -> Iterable[tuple[str, str]]:
    """(name, data URI) of the table in formats for other programs."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "table.parquet"
        try:
            export.write(comparison.results, "parquet", table)
        except ValueError:
            # The library for it is not installed here.
            return
        yield table.name, _data_uri("application/vnd.apache.parquet", table.read_bytes())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _json(data: object) -> str:
    """JSON that may stand inside of a script element: no value can end it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
