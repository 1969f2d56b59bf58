"""A hub on this machine for `huggingface_hub`'s own client: repositories of models as folders, over HTTP.

It knows as much of the protocol as creating a repository, a commit of small files, and a download need.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

COMMIT = "1" * 40


class _Handler(BaseHTTPRequestHandler):
    root: ClassVar[Path]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        sent = self._body()
        if self.path == "/api/repos/create":
            given = json.loads(sent)
            name = "/".join(filter(None, (given.get("organization"), given["name"])))
            (self.root / name).mkdir(parents=True, exist_ok=True)
            self._json({"url": f"{self._address()}/{name}", "name": name, "id": name})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(sent)["files"]
            ]
            self._json({"files": files})
        elif found := re.match(r"/api/models/(.+)/commit/main", self.path):
            for line in sent.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    place = self.root / found[1] / entry["value"]["path"]
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(base64.b64decode(entry["value"]["content"]))
            address = f"{self._address()}/{found[1]}/commit/{COMMIT}"
            self._json({"success": True, "commitOid": COMMIT, "commitUrl": address, "hookOutput": ""})
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.match(r"/api/models/(.+?)/(revision|tree)/[^/]+", path):
            folder = self.root / found[1]
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            names = [str(file.relative_to(folder)) for file in files]
            if not files:
                self.send_error(404)
            elif found[2] == "tree":
                self._json([{"type": "file", "path": name, "size": 1, "oid": COMMIT} for name in names])
            else:
                self._json({"id": found[1], "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]})
        elif found := re.match(r"/(.+)/resolve/[^/]+/(.+)", path):
            file = self.root / found[1] / found[2]
            self._send(file.read_bytes()) if file.is_file() else self.send_error(404)
        else:
            self.send_error(404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, body: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """The address of a hub whose repositories are folders below a folder."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
