"""A hub on this machine: the part of the Hugging Face hub's protocol that atrous uses.

Files of a commit, with their size and git's SHA-1 or a SHA-256, tokens, redirects to a storage at
another host, and pushing by huggingface_hub (all files are "regular", so that no LFS is needed).
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"


class HubServer(ThreadingHTTPServer):
    """Holds repositories by OWNER/NAME, each with one commit on the branch main."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, str] = {}
        """Commit of the branch main, where it is not `COMMIT`."""
        self.secret = ""
        """Token without which nothing is given."""
        self.large: set[str] = set()
        """Files that lie at a storage, by SHA-256."""
        self.says_digests = True
        """Whether the list of files has sizes and digests."""
        self.damage: set[str] = set()
        """Files that arrive with another last byte."""
        self.seen: list[tuple[str, str, str]] = []
        """Host, path and token of each request."""
        self.card: dict[str, Any] = {}
        self.descriptions: list[dict[str, Any]] = []
        """What the first line of each commit says."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away in the middle; that is no news."""


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "")
        self.server.seen.append((self.headers["Host"], path, token))
        if path.startswith("/storage/"):
            return self.send_file(*path.removeprefix("/storage/").split("|"))
        if self.server.secret and token != f"Bearer {self.server.secret}":
            return self.answer(401 if not token else 403, {"error": "no"})
        if match := re.fullmatch("/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self.describe(*match.groups())
        if match := re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, revision, name = match.groups()
            known = ("main", self.commit_of(repository))
            if name in self.server.repositories.get(repository, {}) and revision in known:
                return self.resolve(repository, name)
        return self.answer(404, {"error": "not found"})

    def commit_of(self, repository: str) -> str:
        return self.server.commits.get(repository, COMMIT)

    def describe(self, repository: str, revision: str) -> None:
        files = self.server.repositories.get(repository)
        if files is None or revision not in ("main", self.commit_of(repository)):
            return self.answer(404, {"error": "Revision Not Found"})
        siblings: list[dict[str, Any]] = []
        for name, content in files.items():
            one: dict[str, Any] = {"rfilename": name}
            if self.server.says_digests and "blobs=true" in self.path:
                one |= {"size": len(content), "blobId": git_digest(content)}
                if name in self.server.large:
                    digest = hashlib.sha256(content).hexdigest()
                    one |= {"blobId": 40 * "f", "lfs": {"sha256": digest, "size": len(content)}}
            siblings.append(one)
        document = {"id": repository, "sha": self.commit_of(repository), "siblings": siblings}
        return self.answer(200, document | {"cardData": self.server.card})

    def resolve(self, repository: str, name: str) -> None:
        content = self.server.repositories[repository][name]
        if name not in self.server.large:
            return self.send_file(repository, name, f'"{git_digest(content)}"')
        digest = hashlib.sha256(content).hexdigest()
        place = f"http://localhost:{self.server.server_port}/storage/{repository}|{name}"
        return self.send(302, b"", {"Location": place, "X-Linked-Etag": f'"{digest}"'})

    def send_file(self, repository: str, name: str, etag: str = '"of-the-storage"') -> None:
        content = self.server.repositories[repository][name]
        if name in self.server.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers, status, body = {"ETag": etag}, 200, content
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            status, body = 206, content[start : end + 1]
        self.send(status, body, headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "")
        self.server.seen.append((self.headers["Host"], self.path, token))
        if self.server.secret and token != f"Bearer {self.server.secret}":
            return self.answer(401, {"error": "no"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"warnings": [], "errors": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            if name in self.server.repositories:
                return self.answer(409, {"error": "exists", "url": f"{self.server.url}/{name}"})
            self.server.repositories[name] = {}
            return self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        if match := re.fullmatch("/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if match := re.fullmatch("/api/models/([^/]+/[^/]+)/commit/main", self.path):
            return self.commit(match[1], body)
        return self.answer(404, {"error": "not found"})

    def commit(self, repository: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.descriptions.append(value)
            else:
                content = base64.b64decode(value["content"])
                self.server.repositories[repository][value["path"]] = content
        url = f"{self.server.url}/{repository}/commit/{COMMIT}"
        self.answer(200, {"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})

    def answer(self, status: int, document: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        self.send(status, json.dumps(document).encode(), headers)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
