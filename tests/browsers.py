"""A real browser for tests of pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prerequisites import need_chromium


@contextmanager
def headless() -> Iterator[Any]:
    """Headless Chromium, that tells what it loaded and what its console said."""
    chromium, driver = need_chromium()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


def wait(browser: Any, script: str, expected: object = True, seconds: float = 60) -> None:
    """Wait until an expression has a value in the page."""
    end = time.monotonic() + seconds
    while (found := browser.execute_script(f"return {script}")) != expected:
        assert time.monotonic() < end, f"{script} is {found!r}, not {expected!r}"
        time.sleep(0.05)
