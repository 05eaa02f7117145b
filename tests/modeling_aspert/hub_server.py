"""A small Hub on the loopback interface: what `huggingface_hub` needs of the Hub's API to push and to load a model.

Repositories live in memory, every commit is kept, and weights take the way of large files (LFS: announced, put, then
redirected to), as on the Hub. There is no access control. ``with HubServer() as hub:`` starts it on a free port;
processes find it through the variables of :meth:`HubServer.environment`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".png")
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass
class Repository:
    """Commits, oldest first: their ids and all files (path -> content) after each."""

    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def commit(self, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(str(len(self.commits)).encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
        self.commits.append((digest.hexdigest(), files))
        return digest.hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        if revision == "main":
            return self.commits[-1]
        found = [commit for commit in self.commits if commit[0] == revision]
        if not found:
            raise _Refusal(404, "RevisionNotFound", f"no revision {revision}")
        return found[-1]


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class HubServer:
    """The server. ``repositories`` holds what was pushed, ``requests`` the method and path of every request,
    ``errors`` the tracebacks of requests that this server failed on."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def storage_url(self) -> str:
        """The host of large files, another one by name: clients keep the token from it, as from the Hub's storage."""
        return f"http://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening: from now on a connection is refused. Can be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """Variables with which a process takes this server for the Hub, with an empty cache and no token of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_test",
            # the Xet protocol is a second server's; without it uploads are plain LFS
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def add(self, repo: str, files: Mapping[str, bytes]) -> None:
        """Put files into a repository, as another user's push would."""
        self.repositories.setdefault(repo, Repository([])).commit(dict(files))


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        self.query, self.content = parse_qs(url.query), self._body()
        with self.hub.lock:
            self.hub.requests.append((method, url.path))
            try:
                for methods, pattern, action in _ROUTES:
                    match = re.fullmatch(pattern, url.path)
                    if method in methods and match:
                        action(self, **{name: unquote(value) for name, value in match.groupdict("").items()})
                        return
                raise NotImplementedError(f"{method} {url.path} is not part of this server")
            except _Refusal as refusal:
                self._send(
                    refusal.status,
                    json.dumps({"error": str(refusal)}).encode(),
                    {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)},
                )
            except Exception:
                self.hub.errors.append(traceback.format_exc())
                self._send(500)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _repository(self, repo: str) -> Repository:
        if repo not in self.hub.repositories:
            raise _Refusal(404, "RepoNotFound", f"no repository {repo}")
        return self.hub.repositories[repo]

    # -- writing ------------------------------------------------------------------------------------------------

    def who(self) -> None:
        self._json({"type": "user", "name": "org", "auth": {"accessToken": {"role": "write"}}})

    def create(self) -> None:
        asked = json.loads(self.content)
        repo = f"{asked.get('organization') or 'org'}/{asked['name']}"
        answer = {"id": repo, "name": repo, "url": f"{self.hub.url}/{repo}"}
        if repo in self.hub.repositories:
            self._send(409, json.dumps({"error": "exists already", **answer}).encode())
            return
        repository = self.hub.repositories[repo] = Repository()
        repository.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self._json(answer)

    def validate_yaml(self) -> None:
        match = _FRONT_MATTER.match(json.loads(self.content)["content"])
        try:
            valid = match is not None and isinstance(yaml.safe_load(match.group(1)), dict)
        except yaml.YAMLError:
            valid = False
        answer = {"errors": [] if valid else [{"message": "no metadata"}], "warnings": []}
        self._send(200 if valid else 400, json.dumps(answer).encode())

    def preupload(self, repo: str, revision: str) -> None:
        files = self._repository(repo).at(revision)[1]
        answer = []
        for asked in json.loads(self.content)["files"]:
            path = asked["path"]
            binary = path.endswith(LFS_SUFFIXES) or b"\0" in base64.b64decode(asked["sample"])
            mode = "lfs" if binary else "regular"
            oid = _oid(path, files[path]) if path in files else None
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer})

    def lfs_batch(self, repo: str) -> None:
        self._repository(repo)
        objects = []
        for asked in json.loads(self.content)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.objects:
                actions = {
                    name: {"href": f"{self.hub.url}/lfs-{name}/{asked['oid']}"} for name in ("upload", "verify")
                }
                entry["actions"] = actions
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.content).hexdigest() != oid:
            raise _Refusal(400, "BadRequest", "the content is not what its SHA-256 says")
        self.hub.objects[oid] = self.content
        self._send(200)

    def lfs_verify(self, oid: str) -> None:
        asked = json.loads(self.content)
        if oid not in self.hub.objects or len(self.hub.objects[oid]) != asked["size"]:
            raise _Refusal(404, "EntryNotFound", f"no object {oid} of {asked['size']} bytes")
        self._send(200)

    def commit(self, repo: str, revision: str) -> None:
        repository = self._repository(repo)
        files = dict(repository.at(revision)[1])
        for line in self.content.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            elif operation["key"] == "deletedFolder":
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
            elif operation["key"] != "header":
                raise _Refusal(400, "BadRequest", f"unknown operation {operation['key']}")
        oid = repository.commit(files)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}"})

    # -- reading ------------------------------------------------------------------------------------------------

    def resolve(self, repo: str, revision: str, path: str) -> None:
        oid, files = self._repository(repo).at(revision)
        headers = {"X-Repo-Commit": oid, "Content-Type": "application/octet-stream"}
        if path not in files:
            raise _Refusal(404, "EntryNotFound", f"no file {path}")
        content = files[path]
        if not path.endswith(LFS_SUFFIXES):
            self._send(200, content, {**headers, "ETag": f'"{_oid(path, content)}"'})
            return
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.objects[sha256] = content
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        self._send(302, b"", {**headers, **linked, "Location": f"{self.hub.storage_url}/lfs-object/{sha256}"})

    def lfs_object(self, oid: str) -> None:
        self._send(200, self.hub.objects[oid], {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"})

    def model_info(self, repo: str, revision: str = "main") -> None:
        oid, files = self._repository(repo).at(revision)
        match = _FRONT_MATTER.match(files.get("README.md", b"").decode())
        data = yaml.safe_load(match.group(1)) if match else {}
        answer = {name: data.get(name) for name in ("pipeline_tag", "library_name", "tags")}
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._json({"id": repo, "modelId": repo, "sha": oid, "private": False, "siblings": siblings, **answer})

    def tree(self, repo: str, revision: str, path: str = "") -> None:
        _, files = self._repository(repo).at(revision)
        below = f"{path.strip('/')}/" if path.strip("/") else ""
        found = {name: content for name, content in sorted(files.items()) if name.startswith(below)}
        if below and not found:
            raise _Refusal(404, "EntryNotFound", f"no folder {path}")
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            found = {name: content for name, content in found.items() if "/" not in name[len(below) :]}
        self._json([_tree_entry(name, content) for name, content in found.items()])

    def paths_info(self, repo: str, revision: str) -> None:
        _, files = self._repository(repo).at(revision)
        fields = parse_qs(self.content.decode())
        self._json([_tree_entry(path, files[path]) for path in fields.get("paths", []) if path in files])


def _oid(path: str, content: bytes) -> str:
    """What the Hub calls a file's content: git's blob id, or the SHA-256 of a large file."""
    if path.endswith(LFS_SUFFIXES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _oid(path, content)}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": entry["oid"], "size": len(content), "pointerSize": 130}
    return entry


_ROUTES: list[tuple[tuple[str, ...], str, Any]] = [
    (("GET",), r"/api/whoami-v2", _Handler.who),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), rf"/api/models/{_REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs-upload/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    (("POST",), r"/lfs-verify/(?P<oid>[0-9a-f]{64})", _Handler.lfs_verify),
    (("POST",), rf"/api/models/{_REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (("GET", "HEAD"), r"/lfs-object/(?P<oid>[0-9a-f]{64})", _Handler.lfs_object),
    (("GET",), rf"/api/models/{_REPO}", _Handler.model_info),
    (("GET",), rf"/api/models/{_REPO}/revision/(?P<revision>[^/]+)", _Handler.model_info),
    (("GET",), rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", _Handler.tree),
    (("POST",), rf"/api/models/{_REPO}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
]
