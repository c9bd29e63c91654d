"""A kubeconfig as kubectl reads it, over real connections: names, proxies, tokens."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.cluster.follower import Follower
from tests.cluster.impostor import GOOD, Impostor


def change(one: Follower, part: str, **keys: Any) -> None:
    """Change keys of the cluster or of the user."""
    root = json.loads(one.kubeconfig.read_text())
    root[f"{part}s"][0][part] |= keys
    one.kubeconfig.write_text(json.dumps(root))


def test_the_certificate_may_be_for_another_name_that_is_given(one: Follower) -> None:
    change(one, "cluster", **{"tls-server-name": "kubernetes.default.svc"})
    one.start().await_routes(GOOD)


def test_a_certificate_for_another_name_than_given_is_refused(one: Follower) -> None:
    change(one, "cluster", **{"tls-server-name": "elsewhere.example"})
    one.start().await_fault("certificate")


def test_a_token_file_is_looked_for_beside_the_kubeconfig(
    one: Follower, impostor: Impostor
) -> None:
    change(one, "user", tokenFile="token")
    one.start().await_routes(GOOD)
    assert impostor.tokens == {"Bearer secret-1"}


def test_a_plugin_beside_the_kubeconfig_gives_the_token(one: Follower, impostor: Impostor) -> None:
    plugin = one.folder / "helper"
    made = {"apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "of-plugin"}}
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(made)}'\n")
    plugin.chmod(0o700)
    section = {"apiVersion": made["apiVersion"], "command": "./helper"}
    change(one, "user", tokenFile=None, exec=section)
    one.start().await_routes(GOOD)
    assert impostor.tokens == {"Bearer of-plugin"}


def test_the_proxy_is_used(one: Follower, impostor: Impostor) -> None:
    asked: list[str] = []
    with connect_proxy(asked) as url:
        change(one, "cluster", **{"proxy-url": url})
        one.start().await_routes(GOOD)
        one.stop()
    host, port = impostor.address
    assert {line.split()[1] for line in asked} == {f"{host}:{port}"}


@contextmanager
def connect_proxy(asked: list[str]) -> Iterator[str]:
    """A proxy that tunnels (RFC 9110, 9.3.6), and keeps the first line of each request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, asked), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, asked: list[str]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            _start(lambda made=client: _tunnel(made, asked))  # type: ignore[misc]


def _tunnel(client: socket.socket, asked: list[str]) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    asked.append(head.splitlines()[0].decode())
    host, _, port = head.split()[1].decode().rpartition(":")
    server = socket.create_connection((host, int(port)))
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    _start(lambda: _pass_on(server, client))
    _pass_on(client, server)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with source, suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _start(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()
