"""Servers that are no etcd: a proxy before one that answers no watch, and one of pages."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

from tests.netns.etcd.server import Etcd


@contextmanager
def mute_proxy(etcd: Etcd, *, head: bool) -> Iterator[str]:
    """Its URL. head: whether it begins to answer, with no word of an answer."""
    with _serve(etcd, _handler(etcd, head)) as url:
        yield url


@contextmanager
def web_server(etcd: Etcd, status: int) -> Iterator[str]:
    """The URL of what answers everything with a page, in etcd's namespace."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>\n<h1>Welcome</h1>\n" + b"<p>page</p>" * 100)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with _serve(etcd, Handler) as url:
        yield url


@contextmanager
def _serve(etcd: Etcd, handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = etcd.ns.call(lambda: ThreadingHTTPServer((etcd.address, 0), handler))
    server.daemon_threads = True
    etcd.ns.call(lambda: threading.Thread(target=server.serve_forever, daemon=True).start())
    try:
        yield f"http://{etcd.address}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(etcd: Etcd, head: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self.path.endswith("/watch"):
                self._pass_on(body)
                return
            if head:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
            time.sleep(600)

        def _pass_on(self, body: bytes) -> None:
            headers = {"Content-Type": "application/json"}
            if "Authorization" in self.headers:
                headers["Authorization"] = self.headers["Authorization"]
            context = ssl.create_default_context(cafile=str(etcd.authority.certificate))
            context.load_cert_chain(*etcd.client_files)
            with httpx2.Client(verify=context, trust_env=False, timeout=10) as client:
                url = etcd.urls[0] + self.path
                answer = client.request(self.command, url, content=body, headers=headers)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
