"""An ADD that fails, at whatever stage, leaves node, pod and store as they were."""

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.confs import BRIDGE, MODES, SUBNETS, Conf, ipam, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

DEBIAN = Path("/usr/lib/cni")
REFUSED = {"dst": "198.51.100.0/24", "scope": 255}
"""A route that no kernel takes: 255 is the scope of what is nowhere (RT_SCOPE_NOWHERE)."""


def fail_add(scene: Scene, conf: Conf, pod: Namespace, **keys: Any) -> dict[str, Any]:
    """An ADD that fails and changes nothing; its error object."""
    before = scene.state(pod)
    answer = scene.call("ADD", conf, pod, "failing", **keys)
    assert answer.code == 1, answer
    assert before.changes_to(scene.state(pod)) == []
    return answer.json


def nothing(scene: Scene, pod: Namespace) -> None:
    pass


def pod_has_eth0(scene: Scene, pod: Namespace) -> None:
    pod.ip_batch("link add eth0 type veth peer name eth1")


def other_kind(scene: Scene, pod: Namespace) -> None:
    scene.node.ns.ip_batch(f"link add {BRIDGE} type veth peer name other0")


def other_name(scene: Scene, pod: Namespace) -> None:
    scene.node.ns.ip_batch(
        f"link add br-own type bridge\nlink property add dev br-own altname {BRIDGE}"
    )


def other_gateway(scene: Scene, pod: Namespace) -> None:
    scene.node.ns.ip_batch(
        f"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"
        f"address add 10.99.0.1/16 dev {BRIDGE}"
    )


def overlapping_gateway(scene: Scene, pod: Namespace) -> None:
    scene.node.ns.ip_batch(
        f"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"
        f"address add fd00:77::99/64 dev {BRIDGE} nodad"
    )


@dataclass(frozen=True)
class Failure:
    """How an ADD is made to fail, and what it says then."""

    code: int
    words: str
    modes: tuple[str, ...] = MODES
    prepare: Callable[[Scene, Namespace], None] = nothing
    conf: Conf = field(default_factory=dict)


SMALL = {"subnet": "fd00:78::/64", "rangeStart": "fd00:78::5", "rangeEnd": "fd00:78::5"}

FAILURES = {
    "interface exists": Failure(103, "has a link eth0 already", prepare=pod_has_eth0),
    "bridge is no bridge": Failure(
        101, "a link of that name is not a bridge", ("bridge",), other_kind
    ),
    "bridge's name is an alternative one": Failure(
        101, "that is an alternative name of br-own: use br-own", ("bridge",), other_name
    ),
    "bridge has another address": Failure(
        101, "it has 10.99.0.1/16 already; set forceAddress", ("bridge",), other_gateway
    ),
    "bridge has an overlapping address": Failure(
        101, "it has fd00:77::99/64 already; set forceAddress", ("bridge",), overlapping_gateway
    ),
    "route is refused": Failure(
        101, "add route 198.51.100.0/24", conf={"ipam": ipam(4, 6, routes=[REFUSED])}
    ),
    "IPAM is missing": Failure(7, "is no executable in", conf={"ipam": {"type": "nowhere"}}),
    "address is none of the range's": Failure(
        7, "10.99.0.9", conf={"args": {"cni": {"ips": ["10.99.0.9"]}}}
    ),
    "no ranges": Failure(7, "no address ranges", conf={"ipam": {"type": "podwire"}}),
    "VLAN": Failure(2, "vlan: 5 is not supported", conf={"vlan": 5}),
    "MTU is refused": Failure(101, "Invalid argument", conf={"mtu": 10, "ipam": ipam(4)}),
    "MTU below IPv6's": Failure(7, "mtu: 1279", conf={"mtu": 1279}),
}  # fmt: skip

TAKEN_BRIDGE = (other_kind, other_name, other_gateway, overlapping_gateway)
"""A bridge of that kind cannot have a pod of podwire's already."""

CASES = [
    pytest.param(mode, failure, neighbours, id=f"{mode}-{name}-{neighbours} neighbours")
    for name, failure in FAILURES.items()
    for mode in failure.modes
    for neighbours in ((0,) if failure.prepare in TAKEN_BRIDGE else (0, 1))
]


@pytest.mark.parametrize(("mode", "failure", "neighbours"), CASES)
def test_failing_add_changes_nothing(
    scene: Scene,
    make_pod: Callable[[], Namespace],
    mode: str,
    failure: Failure,
    neighbours: int,
) -> None:
    conf = netconf(mode, (4, 6), ipMasq=True)
    for number in range(neighbours):
        scene.add(conf, make_pod(), f"neighbour{number}")
    pod = make_pod()
    failure.prepare(scene, pod)
    error = fail_add(scene, {**conf, **failure.conf}, pod)
    assert error["code"] == failure.code, error
    assert failure.words in error["msg"] + error.get("details", ""), error


@pytest.mark.parametrize("mode", MODES)
def test_second_range_set_is_exhausted(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str
) -> None:
    ranges = [[{"subnet": SUBNETS[4]}], [SMALL]]
    conf = netconf(mode, (4,), ipam={"ranges": ranges})
    scene.add(conf, make_pod(), "first")
    error = fail_add(scene, conf, make_pod())
    assert error["code"] == 100
    assert "fd00:78::5" in error["details"]


def ipam_plugin(directory: Path, name: str, script: str) -> None:
    """An IPAM plugin that notes the verbs it hears."""
    program = directory / name
    program.write_text(f'#!/bin/sh\necho "$CNI_COMMAND" >> {directory}/{name}.heard\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


ANSWERS: dict[str, tuple[str, int, str]] = {
    "fails with an error": ("""echo '{"code": 77, "msg": "no luck"}'; exit 1""", 77, "no luck"),
    "fails without a word": ("exit 3", 104, "exit status 3"),
    "answers nonsense": ("echo '[[['", 104, "no JSON object"),
    "gives no address": ("""echo '{"cniVersion": "1.0.0"}'""", 104, "returned no address"),
    "gives a wrong address": (
        """echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.1"}]}'""",
        104,
        "is no CNI",
    ),
    "gives a route that is refused": (
        f"echo '{json.dumps({'cniVersion': '1.0.0', 'ips': [{'address': '10.77.0.9/24'}], 'routes': [REFUSED]})}'",  # noqa: E501
        101,
        "add route",
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_ipam_plugin_fails(
    scene: Scene, pod: Namespace, tmp_path: Path, mode: str, answer: str
) -> None:
    script, code, words = ANSWERS[answer]
    ipam_plugin(tmp_path, "broken", script)
    conf = netconf(mode, ipam={"type": "broken"})
    error = fail_add(scene, conf, pod, cni_path=str(tmp_path))
    assert error["code"] == code, error
    assert words in error["msg"] + error.get("details", "")
    heard = (tmp_path / "broken.heard").read_text().split()
    assert heard == ["ADD", "DEL"], "the specification wants a DEL after a failed ADD"


def test_delegated_address_is_given_back(scene: Scene, pod: Namespace, tmp_path: Path) -> None:
    refused = {"dst": "198.51.100.0/24", "gw": "10.77.0.255"}  # the subnet's broadcast address
    delegated = {"type": "host-local", "dataDir": str(tmp_path), **ipam(4, routes=[refused])}
    conf = netconf("bridge", cniVersion="1.0.0", ipam=delegated)
    error = fail_add(scene, conf, pod, cni_path=str(DEBIAN))
    assert error["code"] == 101, error
    files = {path.name for path in (tmp_path / "robust").iterdir()}
    assert "last_reserved_ip.0" in files, "host-local was not asked"
    assert not {name for name in files if name.startswith("10.")}


def wrapped(scene: Scene, tmp_path: Path, mounts: str) -> Path:
    """podwire behind a script that mounts something first, for itself alone."""
    program = tmp_path / "podwire"
    inner = f"{mounts} && exec {scene.bin_dir / 'podwire'}"
    program.write_text(f"#!/bin/sh\nexec unshare --mount --propagation private sh -c '{inner}'\n")
    program.chmod(0o755)
    return program


READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
NO_NFT = "mount --bind /dev/null /usr/sbin/nft"


@pytest.mark.parametrize("mode", MODES)
def test_kernel_settings_are_read_only(
    scene: Scene, pod: Namespace, tmp_path: Path, mode: str
) -> None:
    """As in a container without privileges; whether the node forwards already, says the node."""
    program = wrapped(scene, tmp_path, READ_ONLY)
    before = scene.state(pod)
    answer = scene.node.cni("ADD", program, netconf(mode), netns=pod.path)
    assert answer.json["code"] == 101, answer
    assert "net.ipv4.ip_forward=1" in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []
    scene.node.ns.sysctl("ipv4/ip_forward", "1")
    answer = scene.node.cni("ADD", program, netconf(mode), netns=pod.path)
    assert answer.code == 0, answer
    assert pod.ping("10.77.0.1")


@pytest.mark.parametrize("mode", MODES)
def test_program_nft_is_missing(scene: Scene, pod: Namespace, tmp_path: Path, mode: str) -> None:
    before = scene.state(pod)
    program = wrapped(scene, tmp_path, NO_NFT)
    conf = netconf(mode, ipMasq=True)
    answer = scene.node.cni("ADD", program, conf, netns=pod.path)
    assert answer.json["code"] == 101, answer
    assert "install the package nftables" in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []
    status = scene.node.cni("STATUS", program, conf)
    assert status.json["code"] == 50
    assert scene.call("STATUS", conf).code == 0


@pytest.mark.parametrize(
    "path", ["/run/netns/absent", "/etc/hostname", "/dev/null", "/proc/1/ns/uts"]
)
def test_namespace_is_none(scene: Scene, pod: Namespace, path: str) -> None:
    before = scene.state(pod)
    answer = scene.call("ADD", netconf("ptp"), path)
    assert answer.json["code"] == 4
    assert path in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []


@pytest.mark.parametrize("mode", MODES)
def test_second_add_of_an_attachment_leaves_the_first_alone(
    scene: Scene, pod: Namespace, mode: str
) -> None:
    conf = netconf(mode, (4, 6), ipMasq=True)
    attached = scene.add(conf, pod, "failing")
    assert fail_add(scene, conf, pod)["code"] == 103
    assert scene.check(attached).code == 0
    assert pod.ping("10.77.0.1")


@pytest.mark.parametrize("mode", MODES)
def test_works_after_a_failure(scene: Scene, pod: Namespace, mode: str) -> None:
    good = netconf(mode, (4, 6))
    fail_add(scene, {**good, "ipam": ipam(4, 6, routes=[REFUSED])}, pod)
    attached = scene.add(good, pod, "failing")
    assert pod.ping("10.77.0.1")
    scene.delete(attached)
    assert scene.leftovers(pod) == []
