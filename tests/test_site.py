"""The site of docs/: it is built without a warning, and what leads nowhere is an error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prerequisites import need_module

ROOT = Path(__file__).parent.parent


def build(folder: Path, out: Path) -> Any:
    """`make docs`, with another place for the site."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        need_module(module)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_the_site_has_every_page_and_the_interface_from_docstrings(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in site.glob("*.html")}
    interface = (site / "api.html").read_text(encoding="utf-8")
    for name in ("diffsweep.run", "diffsweep.results.load_fit", "diffsweep.data.examples.Dataset.load"):
        assert f'id="{name}"' in interface
    # Nothing is loaded from elsewhere.
    text = (site / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="([^"]*)"', text)
    assert loaded
    assert [name for name in loaded if name.startswith(("http", "//"))] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "added",
    [
        "[words](nowhere.md)",
        "[words](sweeps.md#nowhere)",
        "![picture](nowhere.png)",
        "[words](../nowhere.py)",
    ],
)
def test_a_link_to_what_is_not_there_stops_the_build(added: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("src", "conf", "tests", "benchmarks", "notebooks", "SECURITY.md", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    # The interface takes most of the time, and has its own test.
    (tmp_path / "docs" / "api.md").write_text("# API\n")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(text[: text.index("  - mkdocstrings:")])
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write(f"\n{added}\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
