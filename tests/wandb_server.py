"""A Weights & Biases server on the loopback: as much of its protocol as real clients need, and what they have told it.

It accepts runs that are online, their resume, their media, tables and artifacts, `wandb sync`, saved workspaces and
reports. It keeps all of it in memory and does not pretend: what it does not know is an error, and listed.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import os
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

ENTITY = "team"
KEY = "0123456789abcdef0123456789abcdef01234567"


def bare() -> dict[str, str]:
    """An environment in which wandb has no key, and talks to nobody about itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    return kept | {"WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1"}


@dataclass
class Run:
    """What the server knows of a run.

    `history` holds rows by their offset, `finished` the exit code that the client told at last, `upserts` how often the
    run was opened or changed.
    """

    name: str
    project: str
    group: str | None = None
    job_type: str | None = None
    display_name: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: int = 0
    log: dict[int, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    finished: int | None = None
    finishes: int = 0
    preempting: bool = False
    upserts: int = 0

    @property
    def values(self) -> dict[str, Any]:
        """The config without the wrapping of each value and without the client's own part."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history in order."""
        return [self.history[offset] for offset in sorted(self.history)]

    def series(self, key: str) -> list[tuple[int, Any]]:
        """(step, value) of the rows that have a key."""
        return [(row["_step"], row[key]) for row in self.rows if key in row]


class Server:
    """The server; a context manager. `environment()` is what a client needs to find it."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self.unknown: list[str] = []
        self.asked: list[str] = []
        self._uploads: dict[str, tuple[dict[str, bytes], str]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="wandb-server-")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        # Half a second, the default, would be waited for at every end.
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._folder.cleanup()

    def environment(self) -> dict[str, str]:
        """Of a process whose wandb talks to this server and to nobody else."""
        kept = {"WANDB_CACHE_DIR": f"{self._folder.name}/cache", "WANDB_DATA_DIR": f"{self._folder.name}/data"}
        return bare() | kept | {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def upload_url(self, store: dict[str, bytes], name: str) -> str:
        """An address to which a file may be put; it then lies in `store`."""
        path = f"/upload/{next(self._numbers)}"
        self._uploads[path] = store, name
        return self.url + path

    def put(self, path: str, content: bytes) -> bool:
        """Take a file."""
        with self._lock:
            if path not in self._uploads:
                return False
            store, name = self._uploads[path]
            store[name] = content
            return True

    def stream(self, run: str, body: dict[str, Any]) -> dict[str, Any]:
        """Take a piece of a run's file stream: rows of its history, its summary, whether it is over."""
        with self._lock:
            known = self.runs[run]
            for name, piece in (body.get("files") or {}).items():
                offset, content = piece["offset"], piece["content"]
                if name == "wandb-history.jsonl":
                    known.history |= {offset + place: json.loads(line) for place, line in enumerate(content)}
                elif name == "wandb-summary.json":
                    known.summary = json.loads(content[-1])
                elif name == "wandb-events.jsonl":
                    known.events = max(known.events, offset + len(content))
                elif name == "output.log":
                    known.log |= {offset + place: line for place, line in enumerate(content)}
                else:
                    self.unknown.append(f"file stream of {name}")
            known.preempting = known.preempting or bool(body.get("preempting"))
            if body.get("complete"):
                known.finished, known.finishes = body["exitcode"], known.finishes + 1
            return {"limits": {}}

    def answer(self, operation: str, asked: dict[str, Any], query: str) -> dict[str, Any] | None:
        """The data that a GraphQL operation asks for; None for one that this server does not know."""
        with self._lock:
            self.asked.append(operation)
            answer = getattr(self, f"_{operation}", None)
            if answer is None:
                self.unknown.append(f"{operation}: {' '.join(query.split())}")
                return None
            return answer(asked)

    def _Viewer(self, asked: dict[str, Any]) -> dict[str, Any]:
        me = {"id": "u", "entity": ENTITY, "username": "user", "email": "user@localhost", "flags": "{}"}
        return {"viewer": me | {"teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    def _ServerFeaturesQuery(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _OrganizationCoreWeaveOrganizationID(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": {"coreWeaveOrganizationId": ""}}}

    def _RunResumeStatus(self, asked: dict[str, Any]) -> dict[str, Any]:
        run, project = self.runs.get(asked["name"]), asked["project"]
        bucket = None
        if run is not None:
            tail = [json.dumps(row) for row in run.rows[-1:]]
            runtime = {"_wandb": {"runtime": 1}} if "_wandb" not in run.summary else {}
            bucket = {
                "id": run.name,
                "name": run.name,
                "summaryMetrics": json.dumps(run.summary | runtime),
                "displayName": run.display_name,
                "logLineCount": len(run.log),
                "historyLineCount": len(run.history),
                "eventsLineCount": run.events,
                "historyTail": json.dumps(tail),
                "eventsTail": "[]",
                "config": json.dumps(run.config),
                "tags": [],
                "notes": None,
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": {"id": project, "name": project, "entity": {"id": ENTITY, "name": ENTITY}, "bucket": bucket}}

    def _UpsertBucket(self, asked: dict[str, Any]) -> dict[str, Any]:
        inserted = asked["name"] not in self.runs
        run = self.runs.setdefault(asked["name"], Run(asked["name"], asked["project"]))
        run.upserts += 1
        run.group = asked.get("groupName") or run.group
        run.job_type = asked.get("jobType") or run.job_type
        run.display_name = asked.get("displayName") or run.display_name
        run.config = json.loads(asked["config"]) if asked.get("config") else run.config
        bucket = {
            "id": run.name,
            "name": run.name,
            "displayName": run.display_name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": {"id": run.project, "name": run.project, "entity": {"id": ENTITY, "name": ENTITY}},
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _CreateRunFiles(self, asked: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[asked["run"]]
        files = [{"name": name, "uploadUrl": self.upload_url(run.files, name)} for name in asked["files"]]
        return {"createRunFiles": {"runID": run.name, "uploadHeaders": [], "files": files}}

    def _ArtifactType(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        given = asked["input"]
        key = f"artifact-{next(self._numbers)}"
        self.artifacts[key] = {
            "name": given["artifactCollectionName"],
            "type": given["artifactTypeName"],
            "run": given.get("runName"),
            "state": "PENDING",
            "files": {},
            "manifest": {},
        }
        sequence = {"latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": key, "state": "PENDING", "artifactSequence": sequence}}}

    def _CreateArtifactManifest(self, asked: dict[str, Any]) -> dict[str, Any]:
        key = asked["artifactID"]
        url = self.upload_url(self.artifacts[key]["manifest"], asked["name"]) if asked.get("includeUpload") else None
        file = {"id": f"{key}-file", "name": asked["name"], "displayName": asked["name"]}
        manifest = {"id": key, "file": file | {"uploadUrl": url, "uploadHeaders": []}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _UpdateArtifactManifest(self, asked: dict[str, Any]) -> dict[str, Any]:
        key = asked["artifactManifestID"]
        name = "wandb_manifest.json"
        url = self.upload_url(self.artifacts[key]["manifest"], name) if asked.get("includeUpload") else None
        file = {"id": f"{key}-file", "name": name, "displayName": name, "uploadUrl": url, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": key, "file": file}}}

    def _CreateArtifactFiles(self, asked: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for wanted in asked["input"]["artifactFiles"]:
            key, name = wanted["artifactID"], wanted["name"]
            nodes.append(
                {
                    "id": f"{key}-{name}",
                    "name": name,
                    "displayName": name,
                    "uploadUrl": self.upload_url(self.artifacts[key]["files"], name),
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "storagePath": name,
                    "artifact": {"id": key},
                }
            )
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[asked["artifactID"]]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": "0"}}}

    def _ProjectInternalId(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"id": asked["projectName"], "internalId": "1"}}

    def _upsertView(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.views.append(asked | {"spec": json.loads(asked["spec"])})
        view = {key: asked.get(key) for key in ("type", "name", "displayName", "description", "spec")}
        project = {"id": "p", "name": asked["projectName"], "entityName": asked["entityName"]}
        number = f"view-{next(self._numbers)}"
        return {
            "upsertView": {
                "view": view | {"id": number, "project": project, "updatedAt": "2026-01-01T00:00:00Z"},
                "inserted": True,
            }
        }

    def _GetProjects(self, asked: dict[str, Any]) -> dict[str, Any]:
        names = sorted({run.project for run in self.runs.values()})
        nodes = [
            {
                "__typename": "Project",
                "id": name,
                "name": name,
                "entityName": ENTITY,
                "createdAt": "2026-01-01T00:00:00Z",
                "isBenchmark": False,
                "user": None,
            }
            for name in names
        ]
        page = {"__typename": "PageInfo", "hasNextPage": False, "endCursor": None}
        return {"models": {"pageInfo": page, "edges": [{"node": node} for node in nodes]}}

    def _UpsertView2(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._upsertView(asked)

    def _RunState(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"state": "running"}}}


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

        def handle(self) -> None:
            # A client that ends lets its connections drop.
            with contextlib.suppress(ConnectionError):
                super().handle()

        def do_GET(self) -> None:
            self._answer({})

        def do_PUT(self) -> None:
            self._answer({} if server.put(self.path, self._body()) else None)

        def do_POST(self) -> None:
            body, path = self._body(), self.path.strip("/").split("/")
            known = base64.b64encode(f"api:{KEY}".encode()).decode()
            if path[-1] in ("graphql", "file_stream") and self.headers["Authorization"] != f"Basic {known}":
                server.asked.append("with a wrong key")
                self._answer({"errors": [{"message": "no such key"}]}, 401)
            elif path[-1] == "graphql":
                asked = json.loads(body)
                operation = asked.get("operationName") or _operation(asked["query"])
                self._graphql(server.answer(operation, asked.get("variables") or {}, asked["query"]), operation)
            elif path[-1] == "file_stream":
                self._answer(server.stream(path[3], json.loads(body)))
            else:
                # Telemetry of the client itself, which is nothing to us.
                self._answer({})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _graphql(self, data: dict[str, Any] | None, operation: str) -> None:
            if data is None:
                self._answer({"data": None, "errors": [{"message": f"unknown operation {operation}"}]})
            else:
                self._answer({"data": data})

        def _answer(self, content: dict[str, Any] | None, status: int = 200) -> None:
            out = json.dumps(content).encode()
            self.send_response(404 if content is None else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

    return Handler


def _operation(query: str) -> str:
    """The name in `query Name(...)`."""
    words = query.replace("(", " ").replace("{", " ").split()
    return words[1] if len(words) > 1 else query
