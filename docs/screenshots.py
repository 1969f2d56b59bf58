"""Pictures of a report for docs/: `python docs/screenshots.py report.html`, or the address that `--serve` prints.

It wants Chromium and selenium, as the tests of pages do. A page is shown on a desktop, at night, and on a phone; one
that is served, as it is while its sweep goes on.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

# Name -> width, height and the theme.
VIEWS = {"desktop": (1280, 960, "light"), "dark": (1280, 960, "dark"), "phone": (390, 844, "light")}


def main(page: str) -> None:
    """Write report_VIEW.png for every view of a file, or report_live.png of an address."""
    from browsers import headless

    served = page.startswith("http")
    address = page if served else Path(page).absolute().as_uri()
    views = {"live": VIEWS["desktop"]} if served else VIEWS
    with headless() as browser:
        for name, (width, height, theme) in views.items():
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            features = [{"name": "prefers-color-scheme", "value": theme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            browser.get(address)
            _settle(browser)
            path = DOCS / f"report_{name}.png"
            _save(browser.get_screenshot_as_png(), path)
            print(f"{path.relative_to(DOCS.parent)}  {path.stat().st_size / 1000:.0f} kB")


def _settle(browser: Any) -> None:
    """Wait until the page looks the same twice."""
    before, end = b"", time.monotonic() + 30
    while (now := browser.get_screenshot_as_png()) != before and time.monotonic() < end:
        before = now
        time.sleep(1)


def _save(png: bytes, path: Path) -> None:
    """Write a picture with the 256 colours that it needs: a third of the size."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
