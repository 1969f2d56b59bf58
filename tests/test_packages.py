"""`.ci/packages`, where apt is held by somebody else or cannot install."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APT_GET = Path(__file__).parent / "programs" / "apt_get_that_is_locked.sh"
TOOLS = ("bash", "sh", "env", "dirname", "mktemp", "grep", "sleep", "tail", "wc", "rm")


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has apt-get, but neither chromium nor npm, and where everyone is root."""
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    (tmp_path / "apt-get").symlink_to(APT_GET)
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "id").chmod(0o755)
    return {"PATH": str(tmp_path), "CALLS": str(tmp_path / "calls"), "APT_RETRY_SECONDS": "0.01"}


def packages(machine: dict[str, str], **more: str) -> tuple[str, list[str]]:
    """What the script says, and the calls of apt-get that it made."""
    done = subprocess.run(
        ["bash", ROOT / ".ci" / "packages"], env=machine | more, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stderr, Path(machine["CALLS"]).read_text().splitlines()


def test_a_lock_of_somebody_else_is_waited_for(machine: dict[str, str]) -> None:
    said, calls = packages(machine)
    assert len(calls) == 3
    assert all("install" in call and "chromium" in call and "DPkg::Lock::Timeout=600" in call for call in calls)
    assert "browser" not in said


@pytest.mark.parametrize(("ci", "outcome"), [("", "skipped"), ("true", "NOT INSTALLED, so these tests will fail")])
def test_what_cannot_be_installed_is_named_with_what_becomes_of_its_tests(
    machine: dict[str, str], ci: str, outcome: str
) -> None:
    said, calls = packages(machine, CI=ci, NEVER="1")
    # Once, once more with new package lists, and no more: no lock is in the way.
    assert ["update" in call for call in calls] == [False, True, False]
    assert f"{outcome}: tests on " in said
    assert "reports in a real browser (apt-get could not install them)" in said
