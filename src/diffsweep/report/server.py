"""Reports of sweeps in a browser while they go on: a server for this machine alone, which changes nothing.

Every address begins with a random word that only whoever reads the terminal knows. A request that names another host
is refused: a page of somebody else's whose name leads here (DNS rebinding) gets nothing.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from diffsweep.messages import print_lines
from diffsweep.mistakes import BadValue, one_line
from diffsweep.report import page
from diffsweep.report.comparison import Comparison
from diffsweep.report.live import standing
from diffsweep.report.live_state import LiveSweep, version

HOST = "127.0.0.1"
# Names under which a browser on this machine, or at the other end of a tunnel, may ask.
_NAMES = ("127.0.0.1", "localhost", "::1")
# A page that takes long to make is not made anew for every result: that many times as long it stays as it is.
_REST = 4.0

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class _Served:
    """A sweep with its last page; `lock` is held by whoever looks at it."""

    sweep: LiveSweep
    lock: threading.Lock = field(default_factory=threading.Lock)
    version: str = ""
    pages: dict[bool, str] = field(default_factory=dict[bool, str])
    comparison: Comparison | None = None
    next: float = 0.0


class ReportServer:
    """Serves the reports of sweeps on 127.0.0.1.

    Args:
        folders: gives the folders of the sweeps that are served, again for each request: newest last.
        about: what the report of a folder's sweep is about.
        port: where to listen; 0 for any that is free.
        metric: number to rank by; None for each cell's main one.
        token: the word that addresses begin with; None for a random one.

    Raises:
        BadValue: if the port cannot be had.
    """

    def __init__(
        self,
        folders: Callable[[], Sequence[Path]],
        about: Callable[[Path], Comparison],
        port: int = 0,
        metric: str | None = None,
        token: str | None = None,
    ) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self._folders, self._about, self._metric = folders, about, metric
        self._served: dict[str, _Served] = {}
        self._lock = threading.Lock()
        try:
            self._http = ThreadingHTTPServer((HOST, port), partial(_Handler, self))
        except (OSError, OverflowError) as error:
            said = error.strerror if isinstance(error, OSError) else "it must be from 0 to 65535"
            raise BadValue("--port", port, f"cannot be had: {said}; 0 takes any that is free") from None
        self._http.daemon_threads = True

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._http.server_address[1]

    def address(self, sweep: str = "") -> str:
        """What to open in a browser: the list of the sweeps, or one of them."""
        return f"http://{HOST}:{self.port}/{self.token}/{quote(sweep) + '/' if sweep else ''}"

    def run(self) -> None:
        """Serve until `stop` or Ctrl-C, which raises KeyboardInterrupt."""
        try:
            self._http.serve_forever(poll_interval=0.1)
        finally:
            self._http.server_close()

    def stop(self) -> None:
        """End `run`, which another thread is in."""
        self._http.shutdown()

    def answer(self, path: str) -> tuple[HTTPStatus, str, str]:
        """The answer to a path: status, kind of content, content."""
        # What is quoted may hold a slash, and is one name then.
        first, *rest = [unquote(part) for part in urlsplit(path).path.split("/")[1:]] or [""]
        if not hmac.compare_digest(first.encode("utf-8", "surrogateescape"), self.token.encode()):
            return _refusal(HTTPStatus.FORBIDDEN, "open the address that the terminal shows")
        if rest == [""]:
            return HTTPStatus.OK, "text/html", self._list()
        served = self._find(rest[0]) if rest else None
        if served is None:
            return _refusal(HTTPStatus.NOT_FOUND, "there is no such sweep")
        match rest[1:]:
            case [""]:
                return HTTPStatus.OK, "text/html", self._page(served, scripts=True)
            case ["parts"]:
                return HTTPStatus.OK, "text/html", self._page(served, scripts=False)
            case ["state"]:
                return HTTPStatus.OK, "application/json", self._state(served)
            case ["log", job]:
                text = served.sweep.tail(job)
                if text is not None:
                    return HTTPStatus.OK, "text/plain", text
        return _refusal(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _find(self, name: str) -> _Served | None:
        """A sweep by its name, of those that are served."""
        folder = next((folder for folder in self._folders() if folder.name == name), None)
        if folder is None:
            return None
        with self._lock:
            if name not in self._served:
                self._served[name] = _Served(LiveSweep(folder))
            return self._served[name]

    def _state(self, served: _Served) -> str:
        with served.lock:
            look = served.sweep.look()
            values = served.sweep.values(look)
            # The browser is told of news when they are there to be had.
            if time.monotonic() < served.next:
                values["version"] = served.version
        return json.dumps(values, allow_nan=False)

    def _page(self, served: _Served, *, scripts: bool) -> str:
        with served.lock:
            began = time.monotonic()
            now = version(served.sweep.look())
            if served.comparison is None or (now != served.version and began >= served.next):
                served.comparison, served.version = self._about(served.sweep.folder), now
                served.pages.clear()
            if scripts not in served.pages:
                about = served.comparison
                # Before a result has the number, there is nothing to rank by it.
                metric = self._metric if any(result.has(self._metric or "") for result in about.results) else None
                served.pages[scripts] = page.render(about, metric, live=served.version, scripts=scripts)
                ended = time.monotonic()
                served.next = ended + _REST * (ended - began)
            return served.pages[scripts]

    def _list(self) -> str:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        rows = []
        for folder in reversed(self._folders()):
            try:
                served = self._find(folder.name)
                if served is None:
                    continue
                with served.lock:
                    look = served.sweep.look()
                    plan = served.sweep.plan
            except (ValueError, OSError) as error:
                rows.append({"name": folder.name, "state": str(error), "done": "", "running": "", "failed": ""})
                continue
            rows.append(
                {
                    "name": folder.name,
                    "done": f"{look.counts['done']} of {len(look.cells)}",
                    "running": look.counts["running"] + look.fit_counts["running"] or "",
                    "failed": look.counts["failed"] + look.counts["blocked"] or "",
                    "state": standing(look, plan),
                }
            )
        environment = Environment(loader=FileSystemLoader(page.ASSETS), autoescape=True, undefined=StrictUndefined)
        style = (page.ASSETS / "page.css").read_text(encoding="utf-8")
        return environment.get_template("sweeps.html").render(rows=rows, style=style)


def _refusal(status: HTTPStatus, text: str) -> tuple[HTTPStatus, str, str]:
    return status, "text/plain", f"{status.value} {status.phrase}: {text}\n"


class _Handler(BaseHTTPRequestHandler):
    """One request; of the methods there are only those that read."""

    server_version, sys_version = "diffsweep", ""

    def __init__(self, reports: ReportServer, *arguments: object) -> None:
        self._reports = reports
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        try:
            if self._named_host() in _NAMES:
                status, kind, text = self._reports.answer(self.path)
            else:
                said = "this server answers to 127.0.0.1 and localhost only"
                status, kind, text = _refusal(HTTPStatus.FORBIDDEN, said)
        except (ValueError, OSError) as error:
            status, kind, text = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, one_line(error))
        content = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def _named_host(self) -> str:
        """The host that the request names, without its port: at the other end of a tunnel that is another one."""
        try:
            return (urlsplit(f"//{self.headers.get('Host', '')}").hostname or "").lower()
        except ValueError:
            return ""

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not shown: there is one every two seconds."""

    def handle(self) -> None:
        # A browser that goes away in the middle of an answer is no error.
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def serve(server: ReportServer, sweep: str = "") -> None:
    """Print where `server` is reached, and serve until Ctrl-C; `sweep` is the one to open, else their list."""
    port = server.port
    print_lines(
        f"report: {server.address(sweep)}",
        f"from another machine: ssh -N -L {port}:{HOST}:{port} {socket.gethostname()}, and open the same address there",
        "Ctrl-C ends it; the sweep goes on",
    )
    try:
        server.run()
    except KeyboardInterrupt:
        print_lines("the report is no longer served")
