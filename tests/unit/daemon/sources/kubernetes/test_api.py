"""The API's answers, right and wrong, over real connections; and how it is found and believed."""

from __future__ import annotations

import gzip
import json
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.sources import http
from daemon.sources.http import BadResponse
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.client import KubernetesClient
from daemon.sources.remote import SourceError

TOKEN = "very-secret-token"  # noqa: S105
RANGES = (ip_network("10.244.0.0/16"),)
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says."""

    protocol_version = "HTTP/1.1"
    answer: Answer

    def handle_anything(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).answer(self)

    do_GET = do_PATCH = do_DELETE = handle_anything  # noqa: N815

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def make_kubeconfig(folder: Path, server: str, **user: str) -> Path:
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user or {"token": TOKEN}}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(content))
    return path


class Served:
    """An API of one answer, and a client of it."""

    def __init__(self, folder: Path, answer: Answer, **user: str) -> None:
        kind = type("Answering", (Handler,), {"answer": staticmethod(answer)})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        url = f"http://127.0.0.1:{self.server.server_port}"
        self.received = 0
        settings = KubernetesSettings(
            cluster_cidrs=RANGES, kubeconfig=make_kubeconfig(folder, url, **user)
        )
        self.api = Api(settings, self._count)

    def _count(self, size: int) -> None:
        self.received += size

    def close(self) -> None:
        self.api.close()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def serve(folder: Path, answer: Answer, **user: str) -> Iterator[Served]:
    with closing(Served(folder, answer, **user)) as served:
        yield served


def test_an_object(tmp_path: Path) -> None:
    with serve(tmp_path, lambda h: h.reply(b'{"a": 1}')) as served:
        assert served.api.get("/x") == {"a": 1}
        assert served.received > len(b'{"a": 1}')


def test_requests_carry_the_token_and_logs_do_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = []

    def answer(handler: Handler) -> None:
        seen.append(handler.headers["Authorization"])
        handler.reply(b"{}")

    with serve(tmp_path, answer) as served:
        served.api.get("/x")
    assert seen == [f"Bearer {TOKEN}"]
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


def test_a_token_file_that_was_rotated_is_read_anew(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    def answer(handler: Handler) -> None:
        right = handler.headers["Authorization"] == "Bearer new"
        handler.reply(b"{}", 200 if right else 401)

    with serve(tmp_path, answer, tokenFile=str(token)) as served:
        with pytest.raises(ApiError, match="401"):
            served.api.get("/x")
        token.write_text("new\n")
        assert served.api.get("/x") == {}


def test_a_refusal_is_told_in_the_words_of_the_api(tmp_path: Path) -> None:
    body = json.dumps({"kind": "Status", "reason": "Forbidden", "message": "no " * 500}).encode()
    with serve(tmp_path, lambda h: h.reply(body, 403)) as served:
        with pytest.raises(ApiError, match="answers GET /x with 403: no no") as caught:
            served.api.get("/x")
        assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff" * 100, b'"x"'])
def test_a_refusal_may_be_anything(tmp_path: Path, body: bytes) -> None:
    with (
        serve(tmp_path, lambda h: h.reply(body, 500)) as served,
        pytest.raises(ApiError, match="with 500"),
    ):
        served.api.get("/x")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff" * 100])
def test_what_is_no_json_is_no_object(tmp_path: Path, body: bytes) -> None:
    with (
        serve(tmp_path, lambda h: h.reply(body)) as served,
        pytest.raises(SourceError, match="with no JSON"),
    ):
        served.api.get("/x")


def test_an_answer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_MAX", 1 << 20)

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            write_for_ever(handler)
        handler.close_connection = True

    with serve(tmp_path, answer) as served:
        with pytest.raises(SourceError, match="more than 1048576 bytes"):
            served.api.get("/x")
        assert served.received < 2 << 20


def write_for_ever(handler: Handler) -> None:
    while True:
        handler.wfile.write(b" " * 65536)


def test_redirects_lead_nowhere(tmp_path: Path) -> None:
    asked = []

    def answer(handler: Handler) -> None:
        asked.append(handler.path)
        handler.reply(b"", 302, Location="/elsewhere")

    with serve(tmp_path, answer) as served, pytest.raises(ApiError, match="302"):
        served.api.get("/x")
    assert asked == ["/x"]


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ({"gitVersion": "v1.30.0"}, ""),
        ({"gitVersion": "v1.36.2-gke.1", "minor": "9+"}, ""),
        ({"gitVersion": "v2.0.0"}, ""),
        ({"gitVersion": "v1.29.14"}, r"Kubernetes 1\.30 or newer is needed, not v1\.29\.14"),
        ({"gitVersion": "v0.99.0"}, r"Kubernetes 1\.30 or newer is needed"),
        ({"gitVersion": "1.36"}, "version cannot be read"),
        ({"gitVersion": 5}, "version cannot be read"),
        ([], "version cannot be read"),
    ],
)
def test_an_api_that_is_too_old_is_named(tmp_path: Path, version: object, why: str) -> None:
    def answer(handler: Handler) -> None:
        assert handler.path == "/version"
        handler.reply(json.dumps(version).encode())

    with serve(tmp_path, answer) as served, ExitStack() as stack:
        if why:
            stack.enter_context(pytest.raises(SourceError, match=why))
        served.api.check_version()


@pytest.mark.parametrize(
    ("items", "metadata", "size"),
    [
        ([{}], {"resourceVersion": "7", "remainingItemCount": 4999}, 5000),
        ([{}], {"resourceVersion": "7"}, 1),
        ([{}], {"resourceVersion": "7", "remainingItemCount": "many"}, 1),
    ],
)
def test_the_size_of_a_list_is_asked_without_the_list(
    tmp_path: Path, items: object, metadata: object, size: int
) -> None:
    def answer(handler: Handler) -> None:
        assert handler.path == "/x?limit=1"
        handler.reply(json.dumps({"metadata": metadata, "items": items}).encode())

    with serve(tmp_path, answer) as served:
        assert served.api.count("/x") == (size, "7")


NOTES = [{"manager": "podwired", "fieldsV1": {"f:spec": {}}}]
LIST = {
    "items": [{"metadata": {"name": "a", "managedFields": NOTES}}, {"b": 2}],
    "metadata": {"resourceVersion": "3"},
}


@pytest.mark.parametrize("packed", [False, True])
def test_a_list_without_what_the_server_notes_about_writers(tmp_path: Path, packed: bool) -> None:
    body = json.dumps(LIST).encode()

    def answer(handler: Handler) -> None:
        assert handler.headers["Accept-Encoding"] == "gzip"
        if packed:
            handler.reply(gzip.compress(body, mtime=0), Content_Encoding="gzip")
        else:
            handler.reply(body)

    with serve(tmp_path, answer) as served:
        assert served.api.get_list("/x", {}) == ([{"metadata": {"name": "a"}}, {"b": 2}], "3")


def test_a_list_is_counted_as_it_was_sent(tmp_path: Path) -> None:
    body = json.dumps({"items": [{"a": 1}] * 10_000, "metadata": {"resourceVersion": "3"}})
    packed = gzip.compress(body.encode(), mtime=0)
    with serve(tmp_path, lambda h: h.reply(packed, Content_Encoding="gzip")) as served:
        found, _ = served.api.get_list("/x", {})
        assert len(found) == 10_000
        assert len(packed) <= served.received <= len(packed) + 500


WHOLE = json.dumps(LIST).encode()


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (WHOLE[:-3], "identity", "no JSON"),
        (b"", "identity", "no JSON"),
        (WHOLE, "gzip", "cannot be reached"),
        (gzip.compress(WHOLE, mtime=0)[:-12], "gzip", "no JSON"),
        (b"[]", "identity", "no items"),
        (b'{"metadata":{"resourceVersion":"3"}}', "identity", "no items"),
        (b'{"items":null,"metadata":{"resourceVersion":"3"}}', "identity", "no items"),
        (b'{"items":{"a":1},"metadata":{"resourceVersion":"3"}}', "identity", "no items"),
        (b'{"items":[],"metadata":{}}', "identity", "no resourceVersion"),
        (b'{"items":[],"metadata":{"resourceVersion":3}}', "identity", "no resourceVersion"),
        (b'{"items":[],"metadata":5}', "identity", "no resourceVersion"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, body: bytes, encoding: str, why: str) -> None:
    def answer(handler: Handler) -> None:
        handler.reply(body, Content_Encoding=encoding)

    with serve(tmp_path, answer) as served, pytest.raises(SourceError, match=why):
        served.api.get_list("/x", {})


def test_what_unpacks_to_more_than_any_cluster_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_MAX", 1 << 20)
    bomb = gzip.compress(b'{"items":[' + b" " * (8 << 20))
    assert len(bomb) < 20_000
    with (
        serve(tmp_path, lambda h: h.reply(bomb, Content_Encoding="gzip")) as served,
        pytest.raises(SourceError, match="more than 1048576 bytes"),
    ):
        served.api.get_list("/x", {})


def test_an_answer_that_drips_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.3)
    end = threading.Event()

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not end.wait(0.05):
            handler.wfile.write(b" ")

    with serve(tmp_path, answer) as served:
        with pytest.raises(SourceError, match="takes over"):
            served.api.get_list("/x", {})
        end.set()


def test_a_watch_gives_lines_as_they_come_until_it_is_interrupted(tmp_path: Path) -> None:
    more, end = threading.Event(), threading.Event()

    def answer(handler: Handler) -> None:
        assert "watch=1" in handler.path
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"one\n\n \ntwo\nthr")
        more.wait(60)
        handler.wfile.write(b"ee\n")
        end.wait(60)
        handler.close_connection = True

    with serve(tmp_path, answer) as served:
        try:
            with served.api.watch("/x", {}, 60) as batches:
                assert next(batches) == [b"one", b"two"]
                more.set()
                assert next(batches) == [b"three"]
                threading.Timer(0.1, served.api.interrupt).start()
                assert list(batches) == []
        finally:
            end.set()


def test_a_line_without_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LINE_MAX", 100_000)

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            write_for_ever(handler)
        handler.close_connection = True

    with (
        serve(tmp_path, answer) as served,
        pytest.raises(BadResponse, match="more than 100000 bytes"),
        served.api.watch("/x", {}, 60) as batches,
    ):
        list(batches)


def test_a_watch_that_is_silent_for_too_long_is_dead(tmp_path: Path) -> None:
    end = threading.Event()

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        end.wait(60)
        handler.close_connection = True

    with serve(tmp_path, answer) as served:
        try:
            with pytest.raises(SourceError, match=r"cannot be reached: .*timed out"):
                listen(served)
        finally:
            end.set()


def listen(served: Served) -> None:
    with served.api.watch("/x", {}, 0.2) as batches:
        list(batches)


def test_nobody_there_is_told(tmp_path: Path) -> None:
    settings = KubernetesSettings(
        cluster_cidrs=RANGES, kubeconfig=make_kubeconfig(tmp_path, "http://127.0.0.1:1")
    )
    with (
        closing(Api(settings, lambda _: None)) as api,
        pytest.raises(SourceError, match=r"API at http://127.0.0.1:1 cannot be reached: .*refused"),
    ):
        api.get("/x")


# -- the configuration


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f" {TOKEN} \r\n"])
def test_a_token_ends_where_its_text_does(tmp_path: Path, token: str) -> None:
    def answer(handler: Handler) -> None:
        handler.reply(json.dumps(handler.headers["Authorization"]).encode())

    with serve(tmp_path, answer, token=token) as served:
        assert served.api.get("/x") == f"Bearer {TOKEN}"


@pytest.mark.parametrize("token", [f"{TOKEN}\nX: y", f"{TOKEN}\x00"])
@pytest.mark.parametrize("key", ["token", "tokenFile"])
def test_a_token_that_cannot_be_sent_is_not_told(
    tmp_path: Path, token: str, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    with serve(tmp_path, lambda handler: handler.reply(b"5")) as served:
        url = f"http://127.0.0.1:{served.server.server_port}"
        user = {key: token if key == "token" else str(file)}
        settings = KubernetesSettings(
            cluster_cidrs=RANGES, kubeconfig=make_kubeconfig(tmp_path, url, **user)
        )
        with pytest.raises(SourceError, match=r"token .* line of ASCII") as caught:
            Api(settings, lambda _: None).get("/x")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert TOKEN not in capfd.readouterr().err


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o600])
@pytest.mark.parametrize("key", ["token", "tokenFile"])
def test_secrets_that_others_may_read_are_warned_of_once(
    tmp_path: Path, mode: int, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    user = {key: TOKEN if key == "token" else str(file)}
    kubeconfig = make_kubeconfig(tmp_path, "https://192.0.2.1", **user)
    secret, other = (kubeconfig, file) if key == "token" else (file, kubeconfig)
    secret.chmod(mode)
    other.chmod(0o644)
    settings = KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=kubeconfig)
    client = KubernetesClient(settings, node="n1", log=Log())
    client.check()
    client.check()
    told = capfd.readouterr().err
    assert told.count(f"chmod 600 {secret}") == (mode != 0o600)
    assert f"chmod 600 {other}" not in told


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = make_kubeconfig(tmp_path, "https://127.0.0.1:1")
    content = yaml.safe_load(path.read_text())
    content["clusters"][0]["cluster"]["certificate-authority"] = "/nowhere/ca.crt"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SourceError, match=r"its certificates: .*No such file"):
        Api(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path), lambda _: None)
