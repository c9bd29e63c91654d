"""Limits, what the kernel has of them, and how much passes."""

import contextlib
import ipaddress
import json
import socket
import threading
import time
from typing import Any

from tests.pytest_netns import Namespace
from tests.pytest_netns.traffic import KINDS, Protocol

INGRESS, EGRESS = 8_000_000, 16_000_000
"""Bits a second that a pod may receive, and send."""
BURST = 400_000
"""Bits that may go at once."""
LIMITS = {
    "ingressRate": INGRESS,
    "ingressBurst": BURST,
    "egressRate": EGRESS,
    "egressBurst": BURST,
}

SECONDS = 0.6
"""How long bytes are counted."""
_PAYLOAD = 1200
_TIMEOUT = 30.0


def qdiscs(ns: Namespace) -> dict[str, list[dict[str, Any]]]:
    """The queueing disciplines of each link, but the kernel's own, with their numbers."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(ns.run(["tc", "-j", "-d", "qdisc", "show"]).stdout):
        if each["kind"] in ("tbf", "ingress", "clsact"):
            shown = {key: each.get(key) for key in ("kind", "root", "handle", "options")}
            found.setdefault(each["dev"], []).append(shown)
    return found


def redirections(ns: Namespace, link: str) -> list[str]:
    """Where filters send what the link receives, in their order."""
    text = ns.run(["tc", "filter", "show", "dev", link, "ingress"]).stdout
    marker = "Egress Redirect to device "
    return [line.partition(marker)[2].split(")")[0] for line in text.splitlines() if marker in line]


def passing(source: Namespace, sink: Namespace, address: str, protocol: Protocol) -> float:
    """Bits of payload a second that arrive at the address of the sink, once a burst has passed."""
    version = ipaddress.ip_address(address).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with (
        sink.socket(family, KINDS[protocol]) as server,
        source.socket(family, KINDS[protocol]) as client,
        contextlib.ExitStack() as rest,
    ):
        server.settimeout(_TIMEOUT)
        client.settimeout(_TIMEOUT)
        server.bind((address, 0))
        if protocol == "tcp":
            server.listen()
        client.connect((address, server.getsockname()[1]))
        receiver = rest.enter_context(server.accept()[0]) if protocol == "tcp" else server
        receiver.settimeout(_TIMEOUT)
        sender = threading.Thread(target=_send, args=(client,))
        sender.start()
        try:
            return _count(receiver)
        finally:
            # What ends the sender: UDP's end is in its own socket alone.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            receiver.close()
            sender.join()


def _send(client: socket.socket) -> None:
    chunk = bytes(_PAYLOAD)
    while True:
        try:
            client.send(chunk)
        except ConnectionRefusedError:
            return
        except OSError:
            return


def _count(receiver: socket.socket) -> float:
    passed = 0
    while passed < BURST // 8 * 2:
        passed += len(receiver.recv(1 << 16))
    began, passed = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < SECONDS:
        passed += len(receiver.recv(1 << 16))
    return passed * 8 / elapsed
