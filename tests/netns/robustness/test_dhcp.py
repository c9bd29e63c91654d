"""Pods of a bridge lease addresses: the reference's `dhcp`, and a DHCP server on the bridge."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.calls import At
from tests.netns.robustness.confs import BRIDGE, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.netns.routing.conftest import eventually
from tests.pytest_netns import MakeNamespace, Namespace

pytestmark = pytest.mark.needs("newest-reference")

ROUTER = "10.77.0.1"
SIGKILL, KILLS = -9, 30


@dataclass(frozen=True)
class Lan:
    """A network that the node's bridge belongs to: a router that leases addresses, and what it and
    the plugin's daemon log."""

    router: Namespace
    folder: Path
    cni_path: str

    def conf(self, **keys: Any) -> Conf:
        ipam = {"type": "dhcp", "daemonSocketPath": str(self.folder / "dhcp.sock")}
        return netconf("bridge", isGateway=False, ipam=ipam) | keys

    def log(self) -> str:
        return "".join((self.folder / name).read_text() for name in ("server", "daemon"))


@pytest.fixture
def lan(
    scene: Scene, netns: MakeNamespace, tmp_path: Path, newest_reference_bin: Path
) -> Iterator[Lan]:
    router = netns("router")
    scene.node.ns.ip_batch(
        f"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"
        f"link add lan type veth peer name eth0 netns {router.name}\n"
        f"link set lan master {BRIDGE} up\n"
    )
    router.ip_batch(f"link set eth0 up\naddress add {ROUTER}/24 dev eth0\n")
    # Addresses are renewed after half of the six seconds.
    (tmp_path / "udhcpd.conf").write_text(
        "start 10.77.0.20\nend 10.77.0.250\ninterface eth0\nmin_lease 6\noption lease 6\n"
        f"option subnet 255.255.255.0\noption router {ROUTER}\nconflict_time 1\noffer_time 1\n"
        f"lease_file {tmp_path}/leases\npidfile {tmp_path}/pid\n"
    )
    (tmp_path / "leases").touch()
    server = ["ip", "netns", "exec", router.name, "busybox", "udhcpd", "-f", "-a", "20"]
    program, place = newest_reference_bin / "dhcp", tmp_path / "dhcp.sock"
    daemon = [*scene.node.enter, program, "daemon", "-socketpath", place]
    daemon += ["-timeout", "2s", "-resendtimeout", "10s"]
    with ExitStack() as running:
        for name, argv in (("server", [*server, tmp_path / "udhcpd.conf"]), ("daemon", daemon)):
            log = running.enter_context((tmp_path / name).open("w"))
            process = subprocess.Popen(argv, stdout=log, stderr=log)  # type: ignore[arg-type]
            running.callback(process.wait)
            running.callback(process.kill)
        eventually(place.exists)
        yield Lan(router, tmp_path, f"{scene.bin_dir}:{program.parent}")


@pytest.fixture
def add(scene: Scene, lan: Lan) -> Callable[..., Attached]:
    def attach(pod: Namespace, container_id: str = "c1", **keys: Any) -> Attached:
        return scene.add(lan.conf(**keys), pod, container_id, cni_path=lan.cni_path)

    return attach


def mac_of(pod: Namespace) -> str:
    link = pod.link("eth0")
    assert link is not None
    return str(link["address"])


def test_a_pod_has_the_address_that_it_leased(
    scene: Scene, lan: Lan, make_pod: Callable[[], Namespace], add: Callable[..., Attached]
) -> None:
    one, two = add(make_pod(), "one"), add(make_pod(), "two")
    assert one.address(4) != two.address(4)
    assert one.address(4).startswith("10.77.0.")
    assert one.pod.ping(ROUTER)
    assert one.pod.ping(two.address(4))
    assert one.pod.exchange(lan.router.echo("tcp", ROUTER)) == one.address(4)
    default = [r for r in one.pod.ip("-4 route") if r["dst"] == "default"]
    assert [r["gateway"] for r in default] == [ROUTER]
    interfaces = one.result["interfaces"]
    assert [i["name"] for i in interfaces] == [BRIDGE, one.host, "eth0"]
    assert interfaces[2]["mac"] == mac_of(one.pod)
    link = scene.node.ns.link(one.host)
    assert link is not None
    assert f"ip={one.cidr(4)}" in link["ifalias"]
    for attached in (one, two):
        assert scene.check(attached, cni_path=lan.cni_path).code == 0
        scene.delete(attached, cni_path=lan.cni_path)
    assert links_and_more(scene, one.pod, two.pod) == []


def test_the_result_is_the_references(
    scene: Scene,
    lan: Lan,
    make_pod: Callable[[], Namespace],
    add: Callable[..., Attached],
    newest_reference_bin: Path,
) -> None:
    bridge, conf = newest_reference_bin / "bridge", lan.conf(type="bridge")
    theirs = scene.node.cni("ADD", bridge, conf, container_id="c2", netns=make_pod().path)
    assert theirs.code == 0, theirs
    ours = add(make_pod(), type="bridge").result
    assert ours["routes"] == theirs.json["routes"]
    assert [{**ip, "address": ""} for ip in ours["ips"]] == [
        {**ip, "address": ""} for ip in theirs.json["ips"]
    ]


def test_a_lease_is_renewed_past_the_source_check(
    scene: Scene, lan: Lan, pod: Namespace, add: Callable[..., Attached]
) -> None:
    attached = add(pod, sourceCheck=True)
    eventually(lambda: lan.log().count("lease renewed") >= 2)
    assert pod.ping(ROUTER)
    assert scene.check(attached, cni_path=lan.cni_path).code == 0
    scene.delete(attached, cni_path=lan.cni_path)


@pytest.mark.parametrize("program", ["podwire", "bridge"])
def test_with_all_that_an_attachment_can_have(
    scene: Scene, lan: Lan, pod: Namespace, program: str
) -> None:
    """What needs the address is there, too (masquerade, a mapped port), and what needs the link."""
    more: Conf = {"ipMasq": True, "macspoofchk": True, "hairpinMode": True}
    if program == "podwire":
        ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        more |= {"runtimeConfig": {"portMappings": ports}, "sysctl": {"net.core.somaxconn": "77"}}
        more |= {"ingressRate": 1_000_000, "ingressBurst": 1_000_000}
        more |= {"egressRate": 1_000_000, "egressBurst": 1_000_000}
    keys: dict[str, Any] = {"program": program, "cni_path": lan.cni_path}
    attached = scene.add(lan.conf(**more), pod, **keys)
    answer = scene.check(attached, **keys)
    assert answer.code == 0, answer
    assert pod.ping(ROUTER)
    if program == "podwire":
        assert pod.sysctl("core/somaxconn") == "77"
    scene.delete(attached, **keys)
    assert links_and_more(scene, pod) == []


def nothing(_scene: Scene, _conf: Conf) -> None:
    pass


def nobody_leases(scene: Scene, _conf: Conf) -> None:
    scene.node.ns.ip_batch("link set lan down")


def no_daemon(_scene: Scene, conf: Conf) -> None:
    conf["ipam"]["daemonSocketPath"] += ".none"


PORT = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
FAILURES: dict[str, tuple[Callable[[Scene, Conf], None], Conf, str]] = {
    "nobody leases": (nobody_leases, {}, "IPAM plugin dhcp failed at ADD"),
    "the daemon is away": (no_daemon, {}, "error dialing DHCP daemon"),
    "a mapped port is taken": (
        nothing, {"runtimeConfig": {"portMappings": [PORT]}}, "host port 8080/tcp is held by first"
    ),
    "ptp": (nothing, {"mode": "ptp"}, "ipam.type: dhcp needs mode bridge"),
}  # fmt: skip


@pytest.mark.parametrize("reason", FAILURES)
def test_an_add_that_fails_changes_nothing(
    scene: Scene, lan: Lan, make_pod: Callable[[], Namespace], reason: str
) -> None:
    prepare, keys, message = FAILURES[reason]
    conf, pod = lan.conf(**keys), make_pod()
    if reason == "a mapped port is taken":
        scene.add(conf, make_pod(), "first", cni_path=lan.cni_path)
    prepare(scene, conf)
    before = links_and_more(scene, pod)
    answer = scene.call("ADD", conf, pod, "failing", cni_path=lan.cni_path)
    assert answer.code == 1, answer
    assert message in answer.json["msg"]
    assert links_and_more(scene, pod) == before


def links_and_more(scene: Scene, *pods: Namespace) -> list[str]:
    """What podwire has made; not what frames of DHCP leave in tables of neighbours."""
    return [x for x in scene.leftovers(*pods) if x != "node link lan"]


def test_a_bridge_that_a_failed_add_made_is_removed(scene: Scene, lan: Lan, pod: Namespace) -> None:
    scene.node.ns.ip_batch(f"link delete {BRIDGE}")
    answer = scene.call("ADD", lan.conf(), pod, cni_path=lan.cni_path)
    assert answer.code == 1, answer
    assert BRIDGE not in scene.links()
    assert links_and_more(scene, pod) == []


@pytest.mark.parametrize(
    "function", ["delegation.py:add", "delegation.py:_parse", "attach.py:complete"]
)
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_delete_overtakes_add(
    scene: Scene, lan: Lan, pod: Namespace, function: str, verb: str
) -> None:
    """Before the plugin is executed, or its result recorded or applied."""
    conf = lan.conf(ipMasq=True)
    at = At(function=function, stop=True)
    running = scene.start("ADD", conf, pod, cni_path=lan.cni_path, at=at)
    running.wait_stopped()
    if verb == "DEL":
        assert scene.call("DEL", conf, pod, cni_path=lan.cni_path).code == 0
    else:
        assert scene.gc(conf, [], cni_path=lan.cni_path).code == 0
    running.resume()
    answer = running.result()
    assert answer.code == 1, answer
    assert links_and_more(scene, pod) == []


def test_the_pods_link_vanishes_before_its_address_is_added(
    scene: Scene, lan: Lan, pod: Namespace
) -> None:
    at = At(function="attach.py:complete", stop=True)
    running = scene.start("ADD", lan.conf(ipMasq=True), pod, cni_path=lan.cni_path, at=at)
    running.wait_stopped()
    pod.ip_batch("link delete eth0")
    running.resume()
    assert running.result().json["code"] == 101
    assert links_and_more(scene, pod) == []


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_an_add_killed_at_any_instant(scene: Scene, lan: Lan, pod: Namespace, verb: str) -> None:
    """Each in another container's name, as a runtime's next try is."""
    conf, path = lan.conf(ipMasq=True, macspoofchk=True), lan.cni_path
    answer = scene.call("ADD", conf, pod, "whole", cni_path=path, at=At())
    assert answer.code == 0, answer
    assert scene.call("DEL", conf, pod, "whole", cni_path=path).code == 0
    for number in range(KILLS):
        name, at = f"c{number}", At(event=1 + number * answer.events // KILLS)
        killed = scene.call("ADD", conf, pod, name, cni_path=path, at=at)
        assert killed.code == SIGKILL or (killed.code == 0 and killed.events > at.event / 2)
        if verb == "DEL":
            after = scene.call("DEL", conf, pod if number % 2 else "", name, cni_path=path)
        else:
            after = scene.gc(conf, [], cni_path=path)
        assert after.code == 0, after
        assert links_and_more(scene, pod) == [], f"before instant {at.event}"
