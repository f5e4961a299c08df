"""A real HTTP server on this machine that serves bytes, and misbehaves on demand."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path; each download (not the question for a size) takes one of `faults`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.version = '"1"'
        self.faults: list[str] = []
        self.ranges: list[str | None] = []
        """The Range of each download that was asked for."""
        self.conditions: list[str | None] = []
        """The If-Range of each."""
        self.asked = 0
        """Questions for a size."""
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away in the middle; that is no news."""


@contextmanager
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if wanted == "bytes=0-0":
            self.server.asked += 1
            fault = ""
        else:
            self.server.ranges.append(wanted)
            self.server.conditions.append(self.headers.get("If-Range"))
            fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            return self.send(int(fault), b"sorry", {})
        body, to, target = fault.partition("to ")
        if to:
            return self.send(302, b"", {"Location": target}, body.strip())
        content = self.server.files.get(self.path)
        if content is None:
            return self.send(404, b"no", {})
        return self.send_content(content, wanted, fault)

    def send_content(self, content: bytes, wanted: str | None, fault: str) -> None:
        headers = {} if fault == "no version" else {"ETag": self.server.version}
        current = self.headers.get("If-Range") in (None, self.server.version)
        if fault == "ignores If-Range":
            current = True
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if not match or not current or fault == "no range":
            return self.send(200, content, headers, fault)
        start, size = int(match[1]), len(content)
        if start >= size:
            return self.send(416, b"", {"Content-Range": f"bytes */{size}"})
        if fault == "another range":
            start //= 2
        end = int(match[2] or size - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        if fault == "odd range":
            headers["Content-Range"] = "bytes all of them"
        return self.send(206, content[start : end + 1], headers, fault)

    def send(self, status: int, body: bytes, headers: dict[str, str], fault: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        length = len(body)
        if fault == "states too few":
            length = len(body) // 2
        if fault == "states too many":
            length = len(body) + 1000
        if fault in ("no length", "endless"):
            self.send_header("Connection", "close")
        elif fault == "chunked cut":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.send_body(body, fault)
        if fault:
            self.close_connection = True

    def send_body(self, body: bytes, fault: str) -> None:
        if fault == "chunked cut":
            self.wfile.write(b"%x\r\n" % len(body) + body[: len(body) // 2])
            return
        if fault in ("cut", "stall"):
            body = body[: len(body) // 2]
        self.wfile.write(body)
        while fault == "endless" and not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))
        if fault == "stall":
            self.wfile.flush()
            self.server.closing.wait()
