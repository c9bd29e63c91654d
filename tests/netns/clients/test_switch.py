"""A node changes from the reference plugins to podwire and back while pods run.

Connections and addresses survive, no new pod gets an address of an old one, and whoever is in place
deletes the pods of both.
"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.pytest_netns import CniResult, Namespace, Node, Underlay

DEBIAN = Path("/usr/lib/cni")
NETWORK = "pods"
SUBNET = "10.88.0.0/29"  # five pods' addresses
DIRECTORY = f"/var/lib/cni/networks/{NETWORK}"


@dataclass
class Pod:
    container_id: str
    ns: Namespace
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.result["ips"][0]["address"]).partition("/")[0]


class Stream:
    """A TCP connection from a pod to a server outside, which stays open."""

    def __init__(self, pod: Pod, listener: socket.socket, undo: ExitStack) -> None:
        self._near = undo.enter_context(pod.ns.socket(socket.AF_INET, socket.SOCK_STREAM))
        self._near.settimeout(30)
        self._near.connect(listener.getsockname())
        self._far, self.seen = listener.accept()
        undo.enter_context(self._far)
        self._far.settimeout(30)

    def is_alive(self) -> bool:
        """Whether bytes pass in both directions."""
        self._near.sendall(b"ping")
        asked = self._far.recv(4) == b"ping"
        self._far.sendall(b"pong")
        return asked and self._near.recv(4) == b"pong"


@dataclass
class Switch:
    """A node with a network of one name, served by one plugin directory after the other."""

    node: Node
    mode: str
    native: bool
    make_pod: Callable[[], Namespace]
    podwire: Path

    def conf(self, plugins: Path) -> dict[str, Any]:
        conf = {"cniVersion": "1.0.0", "name": NETWORK, "type": self.mode, "ipMasq": True}
        if self.mode == "bridge":
            conf |= {"bridge": "cni0", "isDefaultGateway": True}
        ipam: dict[str, Any] = {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]}
        if self.mode == "ptp":
            ipam["routes"] = [{"dst": "0.0.0.0/0"}]
        if plugins == self.podwire and self.native:
            del ipam["type"]
            conf |= {"type": "podwire", "mode": self.mode}
        return {**conf, "ipam": ipam}

    def call(self, verb: str, plugins: Path, pod: Pod, **more: Any) -> CniResult:
        conf = self.conf(plugins)
        return self.node.cni(
            verb,
            plugins / conf["type"],
            {**conf, **more},
            container_id=pod.container_id,
            netns=pod.ns.path,
        )

    def add(self, plugins: Path, container_id: str) -> Pod:
        pod = Pod(container_id, self.make_pod())
        answer = self.call("ADD", plugins, pod)
        assert answer.code == 0, answer
        pod.result = answer.json
        return pod

    def delete(self, plugins: Path, pod: Pod) -> None:
        answer = self.call("DEL", plugins, pod, prevResult=pod.result)
        if plugins == DEBIAN and answer.code:
            # It misses the chain of `ipMasq` that podwire does not need; a runtime tries again.
            assert "does not exist" in answer.json["msg"]
            answer = self.call("DEL", plugins, pod, prevResult=pod.result)
        assert answer.code == 0, answer
        assert pod.ns.link("eth0") is None

    def refuses(self, plugins: Path) -> bool:
        """Whether there is no address for one more pod."""
        pod = Pod("one-more", self.make_pod())
        answer = self.call("ADD", plugins, pod)
        self.call("DEL", plugins, pod)
        return answer.code != 0

    def files(self) -> set[str]:
        """Addresses that host-local has reserved."""
        listed = self.node.run(["sh", "-c", f"ls {DIRECTORY}"], check=False).stdout.split()
        return {name for name in listed if name[0].isdigit()}

    def ipam(self, *command: str) -> str:
        return self.node.run([self.podwire / "podwire-ipam", *command]).stdout


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["native", "by name"])
def switch(
    request: pytest.FixtureRequest,
    node: Node,
    make_pod: Callable[[], Namespace],
    tmp_path: Path,
    podwire_bin: Path,
) -> Switch:
    names = tmp_path / "names"
    names.mkdir()
    for name in ("podwire", "podwire-ipam", "bridge", "ptp", "host-local"):
        installed = podwire_bin / ("podwire-ipam" if name == "podwire-ipam" else "podwire")
        (names / name).symlink_to(installed.resolve())
    return Switch(node, "bridge", request.param == "native", make_pod, names)


@pytest.fixture
def listener(underlay: Underlay, undo: ExitStack) -> socket.socket:
    made = undo.enter_context(underlay.ns.socket(socket.AF_INET, socket.SOCK_STREAM))
    made.bind((underlay.gateway(4), 0))
    made.listen()
    made.settimeout(30)
    return made


@pytest.fixture(
    params=["debian", pytest.param("newest", marks=pytest.mark.needs("newest-reference"))]
)
def reference(request: pytest.FixtureRequest) -> Path:
    if request.param == "debian":
        return DEBIAN
    newest = request.getfixturevalue("newest_reference_bin")
    assert isinstance(newest, Path)
    return newest


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_there_and_back_with_pods_running(
    switch: Switch, mode: str, reference: Path, listener: socket.socket, undo: ExitStack
) -> None:
    switch.mode, ours = mode, switch.podwire
    old = [switch.add(reference, f"old{n}") for n in range(2)]
    streams = [Stream(pod, listener, undo) for pod in old]

    # podwire takes over. A new pod gets none of their addresses, though nobody imported them.
    new = [switch.add(ours, f"new{n}") for n in range(2)]
    streams += [Stream(pod, listener, undo) for pod in new]
    assert len({pod.address for pod in (*old, *new)}) == 4
    assert all(stream.is_alive() for stream in streams)
    assert all(seen.seen[0] == switch.node.address(4) for seen in streams), "not masqueraded"
    assert new[0].ns.ping(old[0].address)
    assert old[1].ns.ping(new[1].address)
    listed = json.loads(switch.ipam("list", "-o", "json"))
    assert {entry["address"] for entry in listed} == {pod.address for pod in (*old, *new)}

    # It deletes one of the old ones, and the others do not notice.
    switch.delete(ours, old[0])
    assert switch.files() == {old[1].address}
    assert all(stream.is_alive() for stream in streams[1:])
    listed = json.loads(switch.ipam("list", "-o", "json"))
    assert {entry["address"] for entry in listed} == {old[1].address, *(p.address for p in new)}

    # Back again: what podwire has given out is exported.
    switch.ipam("export-host-local", DIRECTORY)
    assert switch.files() == {old[1].address, *(pod.address for pod in new)}
    late = switch.add(reference, "late")
    assert late.address not in {old[1].address, *(pod.address for pod in new)}
    streams.append(Stream(late, listener, undo))
    assert all(stream.is_alive() for stream in streams[1:])

    # The reference deletes podwire's pods: links and reservations go.
    switch.delete(reference, new[0])
    assert switch.files() == {old[1].address, new[1].address, late.address}
    assert all(stream.is_alive() for stream in (streams[1], *streams[3:]))

    # And podwire is there once more: it deletes what is left, of both.
    for pod in (old[1], new[1], late):
        switch.delete(ours, pod)
    assert switch.files() == set()
    # A pod that the reference deleted: the runtime's GC.
    gc = {**switch.conf(ours), "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    answer = switch.node.cni("GC", ours / gc["type"], gc, container_id="", ifname="")
    assert answer.code == 0, answer
    assert json.loads(switch.ipam("list", "-o", "json")) == []
    rules = switch.node.run(["nft", "list", "ruleset"]).stdout
    assert not [pod for pod in (*old, *new, late) if f"{pod.address} " in rules], rules
    assert "podwire" not in rules


def test_a_full_range_stays_full(switch: Switch, reference: Path) -> None:
    """No address is free twice, in whatever order the plugins are asked."""
    pods = [switch.add(reference, f"old{n}") for n in range(3)]
    pods += [switch.add(switch.podwire, f"new{n}") for n in range(2)]
    assert len({pod.address for pod in pods}) == 5
    assert switch.refuses(switch.podwire)
    switch.ipam("export-host-local", DIRECTORY)
    assert switch.refuses(reference)
    switch.delete(switch.podwire, pods[0])
    assert switch.files() == {pod.address for pod in pods[1:]}
    assert switch.add(reference, "late").address == pods[0].address


def test_cleanup_takes_what_the_reference_left_of_podwires_pods(
    switch: Switch, reference: Path
) -> None:
    pods = [switch.add(switch.podwire, f"new{n}") for n in range(2)]
    switch.ipam("export-host-local", DIRECTORY)
    podwirectl = (switch.podwire / "podwire").resolve().with_name("podwirectl")
    for pod in pods:
        tables = switch.node.run(["nft", "list", "tables"]).stdout
        assert "table inet podwire" in tables, "a pod needs it"
        switch.delete(reference, pod)
        pod.ns.remove()
        switch.node.run([podwirectl, "cleanup", "--yes"])
    assert "podwire" not in switch.node.run(["nft", "list", "tables"]).stdout
    assert json.loads(switch.ipam("list", "-o", "json")) == []
    assert switch.files() == set()
