"""A small Hub on this machine: the few addresses of it that downloads use, on good days and on bad ones."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE = b"<html><body>Please log in to this network</body></html>"


class Hub(ThreadingHTTPServer):
    """Serves ``files`` (name to path) as the repository ``o/x``; counts what it sends by name.

    ``day``: "good", "page" (a web page for everything), "login" (a redirect to one), "page for files", "cut" (the
    connection is lost within large files), "silent", "json" (of something else), or a status with a code, as in
    "403 GatedRepo".
    """

    daemon_threads = True

    def __init__(self, files, day="good"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.day, self.sent, self.released = files, day, {}, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that leaves is no matter."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def _say(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_CONNECT(self):
        self._say(407, b"", Proxy_Authenticate="Basic")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.server, unquote(urlsplit(self.path).path)
        status, _, code = hub.day.partition(" ")
        if hub.day == "silent":
            hub.released.wait(20)
        elif hub.day == "page" or (hub.day == "page for files" and "/resolve/" in path):
            self._say(200, PAGE, Content_Type="text/html")
        elif hub.day == "login" and path != "/login":
            self._say(302, Location="/login")
        elif hub.day == "login":
            self._say(200, PAGE, Content_Type="text/html")
        elif hub.day == "json":
            self._say(200, b"[1]" if path.endswith("y") else b'{"ok": true}', Content_Type="application/json")
        elif status.isdigit():
            self._say(int(status), **({"X_Error_Code": code} if code else {}))
        elif path.startswith("/api/models/o/x"):
            siblings = [{"rfilename": name} for name in hub.files]
            self._say(200, json.dumps({"id": "o/x", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/o/x/resolve/") and (name := path.split("/", 5)[5]) in hub.files:
            self._file(name, hub.files[name].read_bytes())
        else:
            self._say(404, X_Error_Code="RepoNotFound")

    def _file(self, name, body):
        about = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X_Repo_Commit": COMMIT}
        if self.command == "HEAD":
            self.send_response(200)
            for key, value in about.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return
        self.server.sent[name] = self.server.sent.get(name, 0) + len(body)
        if self.server.day == "cut" and len(body) > 5000:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self._say(200, body, **about)


@contextmanager
def served(folder, day="good", more=()):
    """A Hub with a folder's files, and ``more`` files by name."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    hub = Hub(files | dict(more), day)
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.released.set()
        hub.shutdown()
        hub.server_close()


def use(monkeypatch, url, cache):
    """Let huggingface_hub, which was imported, know another Hub and another cache."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def write_json(path, values):
    path.write_text(json.dumps(values))
