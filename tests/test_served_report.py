"""`diffsweep report --serve`: a page in a real browser follows a real sweep; whoever has no token gets nothing."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

import brake
from browsers import headless, wait
from tiny import TINY

HOSTILE = "<img src=x onerror=document.title='owned'>&\""


@dataclass
class Served:
    """A server in a process of its own.

    Attributes:
        process: of `diffsweep report --serve`.
        address: what it printed.
        printed: all that it printed before it was asked anything.
    """

    process: subprocess.Popen[str]
    address: str
    printed: list[str]

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of the answer to a path as it stands."""
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.address).port or 0, timeout=60)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read().decode()
        connection.close()
        return found

    @property
    def root(self) -> str:
        """The path of the list of sweeps."""
        return urlsplit(self.address).path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


def diffsweep(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "diffsweep", *words]
    # As from a terminal, whose Ctrl-C reaches it.
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, text=True, **pipes)


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[Served]:
    process = diffsweep(project, "report", "--serve")
    assert process.stdout is not None
    printed = [process.stdout.readline().rstrip("\n") for _ in range(3)]
    yield Served(process, printed[0].partition(": ")[2], printed)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "the report is no longer served\n", "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless() as opened:
        yield opened


def shows(text: str) -> str:
    """Whether the page has a text, as an expression."""
    return f"(document.documentElement?.textContent ?? '').includes({json.dumps(text)})"


@pytest.fixture(scope="module")
def sweep(project: Path, served: Served, browser: Any) -> str:
    """The name of a sweep that ran, and of which a training failed, while the browser looked on."""
    wrong = urlsplit(served.address)
    browser.get(f"{wrong.scheme}://{wrong.netloc}/not-the-token/")
    wait(browser, shows("403 Forbidden"))
    browser.get(served.address)
    # The list is read anew again and again, and is empty for a moment then.
    wait(browser, shows("There is no sweep yet."))
    words = ["sampler=ddim,heun", "optimizer.lr=0.001,1e30", "training.steps=300", "training.clip=null"]
    # It goes on when the browser has seen it train.
    stop = project / "brake"
    stop.write_text("loss 150")
    running = diffsweep(project, "train", "-m", *TINY, *words, brake.LOSS, **brake.environment(stop))
    try:
        # The list looks for itself.
        wait(browser, "document.links.length", 1, 120)
        browser.execute_script("document.links[0].click()")
        wait(browser, "document.getElementById('standing')?.textContent.startsWith('running') ?? false", seconds=120)
        browser.execute_script("window.here = true")
        shown = "document.querySelectorAll('#running tr').length > 1"
        wait(browser, shown, seconds=120)
        wait(browser, "document.getElementById('curves').querySelector('.lines') !== null", seconds=120)
        stop.unlink()
        wait(
            browser,
            "[...document.querySelectorAll('#troubles p')].some((p) => p.textContent.includes('training diverged'))",
        )
        wait(browser, "document.querySelectorAll('#table .tabulator-row').length", 2, 240)
        wait(browser, "document.getElementById('standing').textContent.startsWith('finished')", seconds=120)
        assert browser.execute_script("return window.here"), "the page was loaded anew"
    except BaseException:
        stop.unlink(missing_ok=True)
        running.kill()
        raise
    running.communicate(timeout=60)
    assert running.returncode == 1
    return next((project / "runs" / "sweeps").iterdir()).name


@pytest.mark.slow
def test_the_page_has_followed_the_sweep_to_its_end(browser: Any, sweep: str) -> None:
    text = browser.execute_script("return document.body.innerText")
    assert sweep in text
    assert "2 of 4 cells done, 2 not run; 1 of 2 trainings done, 1 failed" in text
    assert browser.execute_script("return document.querySelector('#summary .first').textContent").startswith("sampler=")
    assert "2 cells: not run" in browser.execute_script("return document.getElementById('without').textContent")
    assert browser.execute_script("return document.querySelectorAll('#strips img').length") == 2
    assert not [entry for entry in browser.get_log("browser") if entry["source"] != "network"]


@pytest.mark.slow
def test_a_readers_choices_stay_when_results_come_in(browser: Any, sweep: str) -> None:
    browser.execute_script("find('find').value = 'heun'; filtered()")
    wait(browser, "document.querySelectorAll('#table .tabulator-row').length", 1)
    browser.execute_script("window.before = data; choose(table.rows[1].cell); parts()")
    wait(browser, "data === window.before", False)
    wait(browser, "document.querySelectorAll('#table .tabulator-row').length", 1)
    assert browser.execute_script("return find('cell').value === table.rows[1].cell")
    browser.execute_script("find('find').value = ''; filtered()")


@pytest.mark.slow
def test_the_end_of_a_jobs_log_is_shown(browser: Any, sweep: str) -> None:
    options = "[...document.querySelectorAll('#log option')]"
    failing = f"{options}.findIndex((one) => one.value.startsWith('fit-'))"
    wait(browser, f"{failing} >= 0")
    browser.execute_script(f"find('logs').open = true; find('log').selectedIndex = {failing}")
    browser.execute_script("find('logs').dispatchEvent(new Event('change'))")
    wait(browser, "document.getElementById('tail').textContent.length > 0")


@pytest.mark.slow
def test_a_server_that_is_gone_is_said(browser: Any, sweep: str) -> None:
    browser.execute_script("window.fetch = () => Promise.reject(new Error('gone')); look()")
    wait(browser, "document.getElementById('standing').textContent.startsWith('the server does not answer')")


def test_what_is_printed_says_where_and_how_to_reach_it(served: Served) -> None:
    port = urlsplit(served.address).port
    assert served.printed[0].startswith(f"report: http://127.0.0.1:{port}/")
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in served.printed[1]
    assert "Ctrl-C" in served.printed[2]
    assert len(served.root.strip("/")) >= 32


@pytest.mark.parametrize("path", ["/", "", "/x/", "/favicon.ico", "/%ff%fe/", "/../", "//"])
def test_without_the_token_there_is_nothing(path: str, served: Served) -> None:
    status, _, text = served.get(path or "/")
    assert (status, text) == (403, "403 Forbidden: open the address that the terminal shows\n")
    token = served.root.strip("/")
    for near in (token[:-1], token + "x", token.swapcase()):
        assert served.get(f"/{near}/")[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "0.0.0.0", "[", ""])
def test_a_page_whose_name_leads_here_gets_nothing(host: str, served: Served) -> None:
    assert served.get(served.root, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "localhost:22022", "[::1]:80"])
def test_the_end_of_a_tunnel_may_have_another_port(host: str, served: Served) -> None:
    assert served.get(served.root, Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(method: str, served: Served) -> None:
    assert served.get(served.root, method)[0] == 501


def test_a_browser_is_told_to_keep_nothing_and_to_load_nothing(served: Served) -> None:
    for method in ("GET", "HEAD"):
        status, headers, text = served.get(served.root, method)
        assert status == 200
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert bool(text) == (method == "GET")


@pytest.mark.slow
def test_no_path_leads_out_of_the_sweeps(project: Path, served: Served, sweep: str) -> None:
    (project / "secret.txt").write_text("secret")
    inside = f"{served.root}{sweep}"
    for path in (
        f"{served.root}..%2f..%2fsecret.txt",
        f"{served.root}../../secret.txt",
        f"{served.root}..%2f{sweep}/",
        f"{served.root}nothing/",
        f"{served.root}%2e%2e/",
        inside,
        f"{inside}/nothing",
        f"{inside}/plan.json",
        f"{inside}/../{sweep}/",
        f"{inside}/log/",
        f"{inside}/log/nothing",
        f"{inside}/log/..%2f..%2f..%2fsecret.txt",
        f"{inside}/log/..%2fjobs.json",
        f"{inside}/log/{quote(str(project / 'secret.txt'), safe='')}",
        f"{inside}/log/../../../../secret.txt",
    ):
        status, _, text = served.get(path)
        assert status == 404, path
        assert "secret" not in text
    state = json.loads(served.get(f"{inside}/state?x=1")[2])
    assert state["name"] == sweep
    log = served.get(f"{inside}/log/{state['logs'][0]['id']}")
    assert (log[0], log[1]["Content-Type"]) == (200, "text/plain; charset=utf-8")


@pytest.mark.slow
def test_html_in_a_name_stays_text(project: Path, served: Served, sweep: str, browser: Any) -> None:
    sweeps = project / "runs" / "sweeps"
    shutil.copytree(sweeps / sweep, sweeps / HOSTILE)
    try:
        text = served.get(served.root)[2]
        assert "<img" not in text
        assert "&lt;img src=x" in text
        browser.get(f"{served.address}{quote(HOSTILE, safe='')}/")
        wait(browser, "document.querySelector('h1').textContent", HOSTILE)
        wait(browser, "document.getElementById('standing').textContent.includes('finished')")
        assert browser.title == f"{HOSTILE} - diffsweep"
        assert not browser.execute_script("return document.querySelector('img[src=x]')")
    finally:
        shutil.rmtree(sweeps / HOSTILE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--serve", "--port", "70000"], "--port=70000 cannot be had: it must be from 0 to 65535"),
        (["--serve", "nosuch"], "sweep nosuch is unknown"),
        (["--serve", "sampler=ddim"], "--serve shows one sweep or all of them, not sampler=ddim"),
        (["--serve", "--animate", "2"], "--animate is of a page that is written"),
        (["--port", "80", "last"], "--port 80 is of --serve"),
        ([], "name a sweep, as last, or give conditions"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    done = diffsweep(tmp_path, "report", *words)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out, len(err.splitlines())) == (2, "", 1), err
    assert said in err


def test_a_port_that_is_taken_is_said(served: Served, tmp_path: Path) -> None:
    done = diffsweep(tmp_path, "report", "--serve", "--port", str(urlsplit(served.address).port))
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (2, "")
    assert "cannot be had: " in err
    assert os.strerror(98) in err or "in use" in err
