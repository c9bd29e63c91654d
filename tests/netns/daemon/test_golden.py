"""The daemon answers as the standalone path does, byte by byte: every verb, name and error code.

Left out: 199, which only a bug answers.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.netns.daemon.conftest import Daemon, StartDaemon
from tests.netns.daemon.networks import CONF, Conf, MakePod, netconf
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import CniResult, Node

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")
FAILING = """\
#!/bin/sh
# An IPAM plugin that fails as its name says.
case $0 in
    *speechless) exit 3 ;;
    *talkative)
        echo '{"cniVersion": "1.0.0", "code": 777, "msg": "no", "details": "never"}'
        exit 1 ;;
    *silent) exit 0 ;;
esac
"""

# Of everything in a result, this alone is the kernel's own choice.
BRIDGE_MAC = re.compile(r'("name": "cni0",\s+"mac": ")[^"]+')
AGE = re.compile(r"for \d+s\b")

Seen = list[tuple[str, int, str, str]]


class Story:
    """Calls on one node, and what they answered with paths made neutral."""

    def __init__(self, node: Node, make_pod: MakePod, folder: Path) -> None:
        self.node, self.folder = node, folder
        self.pods = [make_pod() for _ in range(3)]
        self.seen: Seen = []

    @property
    def pod(self) -> Namespace:
        return self.pods[0]

    def call(
        self,
        verb: str,
        conf: Mapping[str, Any] | bytes = CONF,
        *,
        name: str = "podwire",
        **keys: Any,
    ) -> CniResult:
        """Make a call for the first pod and note its answer."""
        keys = {"netns": self.pod.path, **keys}
        answer = self.node.cni(verb, self.folder / name, conf, **keys)
        out, err = self._neutral(answer.stdout), self._neutral(answer.stderr)
        self.seen.append((verb, answer.code, out, err))
        return answer

    def _neutral(self, text: str) -> str:
        for number, pod in enumerate(self.pods):
            text = text.replace(str(pod.path), f"POD{number}")
        text = AGE.sub("for AGE", BRIDGE_MAC.sub(r"\1MAC", text))
        return text.replace(self.node.ns.name, "NODE")

    @property
    def codes(self) -> set[int]:
        """The error codes that were answered."""
        found = (re.search(r'"code": (\d+)', out) for _verb, code, out, _err in self.seen if code)
        return {int(match[1]) for match in found if match}


def attachment(story: Story) -> set[int]:
    """One attachment's life, sound and damaged."""
    call, pod = story.call, story.pod
    call("VERSION")
    call("STATUS")
    result = call("ADD").json
    call("CHECK", {**CONF, "prevResult": result})
    call("ADD")
    pod.run(["ip", "route", "del", "default"])
    call("CHECK", {**CONF, "prevResult": result})
    call("CHECK")
    call("DEL", {**CONF, "prevResult": result})
    call("CHECK", {**CONF, "prevResult": result})
    call("DEL")
    call("GC", {**CONF, "cni.dev/valid-attachments": []})
    call("GC")
    call("ADD", {**CONF, "cniVersion": "0.2.0"})
    call("DEL", {**CONF, "cniVersion": "0.2.0"})
    call("ADD", container_id="stale")
    call("GC", {**CONF, "cni.dev/valid-attachments": None})
    return {7, 102, 103}


def arguments(story: Story) -> set[int]:
    """What a runtime may get wrong."""
    call = story.call
    for netns in ("/run/netns/no-such", "/etc/passwd", "/", "/proc/self/ns/mnt", "/dev/null"):
        call("ADD", netns=netns)
    for netns in ("relative", "/" + "x" * 5000, f"/run/netns/{story.node.ns.name}"):
        call("ADD", netns=netns)
    call("DEL", netns="/run/netns/no-such")
    call("DEL", netns="/etc/passwd")
    call("CHECK", {**CONF, "prevResult": {"cniVersion": "1.1.0"}}, netns="/run/netns/no-such")
    call("ADD", container_id="-")
    call("ADD", ifname="a/b")
    call("ADD", args="K8S_POD_NAME=a;Nonsense=1")
    call("FROB")
    for verb in VERBS:
        call(verb, container_id="", netns="", ifname="", cni_path="")
        call(verb, b"")
    for stdin in (b"\xff", b"[]", b"{", b'{"a":' * 5000, b" " * ((4 << 20) + 1), b'"\\ud800"'):
        call("ADD", stdin)
    call("DEL", b"x" * (6 << 20))
    return {4, 6}


def configuration(story: Story) -> set[int]:
    """What an operator may get wrong."""
    call = story.call
    for verb in VERBS:
        call(verb, {**CONF, "cniVersion": "9.0.0"})
        call(verb, {**CONF, "mtu": "x"})
        call(verb, {**CONF, "name": "\ud800"})
    call("STATUS", {**CONF, "cniVersion": "1.0.0"})
    call("ADD", {**CONF, "vlan": 7})
    call("ADD", {**CONF, "mtu": "\ud800"})
    for verb in ("ADD", "DEL", "STATUS"):
        call(verb, {**CONF, "ipam": {**CONF["ipam"], "dataDir": "/dev/null/x"}})
    return {1, 2, 5, 7}


def addresses(story: Story) -> set[int]:
    """A network of two addresses, for three pods."""
    ipam: Conf = {"subnet": "10.61.0.0/29", "rangeStart": "10.61.0.2", "rangeEnd": "10.61.0.3"}
    conf = {**netconf("small", 61, "ptp"), "ipam": ipam}
    call = story.call
    call("ADD", conf, container_id="c0", args="IP=10.61.0.3")
    call("ADD", conf, container_id="c1", args="IP=10.61.0.3", netns=story.pods[1].path)
    call("ADD", conf, container_id="c1", netns=story.pods[1].path)
    call("ADD", conf, container_id="c2", netns=story.pods[2].path)
    call("STATUS", conf)
    resting = {**conf, "ipam": {**ipam, "restPeriod": 100_000}}
    call("DEL", resting, container_id="c1", netns="")
    call("ADD", resting, container_id="c2", netns=story.pods[2].path)
    call("DEL", conf, container_id="c0")
    return {11, 50, 100, 105}


def kernel(story: Story) -> set[int]:
    """What the node makes impossible."""
    story.node.ns.ip_batch("link add notabridge type veth peer name other\n")
    call = story.call
    for verb in ("STATUS", "ADD", "DEL"):
        call(verb, netconf("nobridge", 62, "bridge", bridge="notabridge"))
    return {50, 101}


def delegation(story: Story) -> set[int]:
    """IPAM plugins that fail, podwire's own under its name, and the other names."""
    call = story.call
    for name in ("speechless", "talkative", "silent", "absent"):
        for verb in ("ADD", "DEL", "STATUS"):
            call(verb, {**netconf(name, 63, "ptp"), "ipam": {"type": name}})
    ipam = {"type": "host-local", "subnet": "10.64.0.0/24"}
    for name in ("podwire-ipam", "host-local", "bridge", "ptp"):
        conf = {**netconf(f"as-{name}", 64, "ptp"), "type": name, "ipam": ipam}
        call("VERSION", conf, name=name)
        call("STATUS", conf, name=name)
        result = call("ADD", conf, name=name).json
        call("ADD", conf, name=name)
        call("GC", {**conf, "cni.dev/valid-attachments": []}, name=name)
        call("CHECK", {**conf, "prevResult": result}, name=name)
        call("DEL", {**conf, "prevResult": result}, name=name)
    return {7, 102, 103, 104, 777}


STORIES: list[Callable[[Story], set[int]]] = [
    attachment, arguments, configuration, addresses, kernel, delegation,
]  # fmt: skip


@pytest.fixture(scope="module")
def bin_dir(podwire_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """podwire's names and failing IPAM plugins in one folder, which is CNI_PATH."""
    folder = tmp_path_factory.mktemp("golden")
    for program in podwire_bin.iterdir():
        (folder / program.name).symlink_to(program.resolve())
    for name in ("speechless", "talkative", "silent"):
        (folder / name).write_text(FAILING)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("tell", STORIES)
def test_the_same_bytes_on_both_paths(
    make_node: Callable[[], Node],
    make_pod: MakePod,
    start_daemon: StartDaemon,
    bin_dir: Path,
    tell: Callable[[Story], set[int]],
) -> None:
    served, alone = (Story(make_node(), make_pod, bin_dir) for _ in range(2))
    daemon: Daemon = start_daemon(served.node)
    assert tell(served) <= served.codes
    tell(alone)
    for mine, other in zip(served.seen, alone.seen, strict=True):
        assert mine == other
    status, log = daemon.stop()
    assert status == 0
    # The calls did go through the daemon; VERSION is the shim's.
    lines = re.findall(r"^\S+ (?:info|error) +\S+ (?:done|failed: )", log, re.MULTILINE)
    assert len(lines) == sum(verb != "VERSION" for verb, *_rest in served.seen)
