"""A pod of a service ends, and a client goes on sending UDP from the port that it has.

The kernel knows this connection and translates it to the dead pod, whatever the service's rule says
by now: the client gets no answer for as long as it tries, or gets one of the next pod that has the
address.
"""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.netns.daemon.conftest import StartDaemon, podwired, start_daemon
from tests.netns.robustness.confs import BRIDGE, MODES, Conf, ipam, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace
from tests.pytest_netns.underlay import Family

__all__ = ["podwired", "start_daemon"]

MakePod = Callable[[], Namespace]
SERVICE: dict[Family, str] = {4: "10.96.0.10", 6: "fd00:96::10"}
INET: dict[Family, socket.AddressFamily] = {4: socket.AF_INET, 6: socket.AF_INET6}
DEBIAN = Path("/usr/lib/cni")
FAMILIES: tuple[Family, ...] = (4, 6)
REACHED_SECONDS = 30.0
SILENT_SECONDS = 2.0
"""How long is waited where no pod should receive anything."""


class Service:
    """A service of the node with one pod behind it, and a client outside with one connection."""

    def __init__(self, scene: Scene, family: Family, stack: ExitStack) -> None:
        self._ns, self._family, self._stack = scene.node.ns, family, stack
        self._receivers: dict[socket.socket, str] = {}
        protocol, kind = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}[family]
        self._map = f"{protocol} service ends"
        lookup = f"{protocol} daddr {SERVICE[family]} dnat to udp dport map @ends"
        self._nft(
            f"table {protocol} service {{ map ends {{ type inet_service : {kind}; }}\n"
            f"chain prerouting {{ type nat hook prerouting priority dstnat; {lookup}\n}}\n}}"
        )
        outside = scene.node.underlay.ns
        outside.ip_batch(f"route add {SERVICE[family]} via {scene.node.address(family)}")
        self._client = stack.enter_context(outside.socket(INET[family], socket.SOCK_DGRAM))
        self._client.connect((SERVICE[family], 53))

    def _nft(self, script: str) -> None:
        self._ns.run(["nft", "-f", "-"], stdin=script)

    def leads_to(self, address: str) -> None:
        """From now on new connections are translated to this address."""
        self._nft(f"flush map {self._map}\nadd element {self._map} {{ 53 : {address} }}")

    def listen(self, name: str, pod: Namespace, address: str) -> None:
        """Let a pod receive what is sent to it."""
        receiver = self._stack.enter_context(pod.socket(INET[self._family], socket.SOCK_DGRAM))
        receiver.bind((address, 53))
        self._receivers[receiver] = name

    def send(self, seconds: float = REACHED_SECONDS) -> str:
        """Send once more; the name of the pod that receives it, empty where none does."""
        self._client.send(b"who is there?")
        ready, _, _ = select.select([*self._receivers], [], [], seconds)
        for receiver in ready:
            receiver.recv(100)
        return " and ".join(self._receivers[receiver] for receiver in ready)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return 4 if request.param == 4 else 6


@pytest.fixture
def service(scene: Scene, family: Family) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(scene, family, stack)


def conf_of(kind: str) -> Conf:
    """A network of two addresses of each family. kind: a mode of podwire's, or "as" a plugin."""
    ranges = [
        [{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.8", "rangeEnd": "10.77.0.9"}],
        [{"subnet": "fd00:77::/64", "rangeStart": "fd00:77::8", "rangeEnd": "fd00:77::9"}],
    ]
    addresses = {**ipam(4, 6), "ranges": ranges}
    if kind in MODES:
        return netconf(kind, ipam=addresses)
    plugin = kind.removeprefix("as ")
    conf: Conf = {"cniVersion": "1.0.0", "name": "robust", "type": plugin}
    conf |= {"ipam": {"type": "host-local", **addresses}}
    return conf | ({"bridge": BRIDGE, "isGateway": True} if plugin == "bridge" else {})


def attach(scene: Scene, kind: str, folder: Path, pod: Namespace, name: str) -> Attached:
    conf = conf_of(kind)
    answer = call(scene, "ADD", conf, folder, container_id=name, netns=pod.path)
    return Attached(pod, name, "eth0", conf, answer)


def call(scene: Scene, verb: str, conf: Conf, folder: Path, **keys: Any) -> dict[str, Any]:
    answer = scene.node.cni(verb, folder / str(conf["type"]), conf, **keys)
    assert answer.code == 0, answer
    return answer.json if verb == "ADD" else {}


def end(scene: Scene, attached: Attached, folder: Path, *, netns: bool = True) -> None:
    conf = {**attached.conf, "prevResult": attached.result}
    path = attached.pod.path if netns else ""
    call(scene, "DEL", conf, folder, container_id=attached.container_id, netns=path)


def outlive(
    scene: Scene,
    service: Service,
    family: Family,
    make_pod: MakePod,
    kind: str,
    folder: Path,
    seconds: float = REACHED_SECONDS,
) -> str:
    """The client's pod ends; which one its next datagram reaches, in so many seconds."""
    one, two = (attach(scene, kind, folder, make_pod(), name) for name in ("one", "two"))
    for attached in (one, two):
        service.listen(attached.container_id, attached.pod, attached.address(family))
    service.leads_to(one.address(family))
    assert service.send() == "one"
    service.leads_to(two.address(family))
    assert service.send() == "one", "the connection stays while the pod lives"
    end(scene, one, folder)
    return service.send(seconds)


@pytest.mark.parametrize("kind", [*MODES, "as bridge", "as ptp"])
def test_a_client_that_goes_on_reaches_the_pod_that_lives(
    scene: Scene,
    service: Service,
    family: Family,
    make_pod: MakePod,
    kind: str,
    podwire_bin: Path,
) -> None:
    assert outlive(scene, service, family, make_pod, kind, podwire_bin) == "two"


@pytest.mark.parametrize("family", [4], indirect=True)
@pytest.mark.parametrize("kind", ["as bridge", "as ptp"])
@pytest.mark.parametrize(
    "reference", ["debian", pytest.param("newest", marks=pytest.mark.needs("newest-reference"))]
)
def test_with_the_reference_it_sends_to_the_dead_pod(
    scene: Scene,
    service: Service,
    family: Family,
    make_pod: MakePod,
    request: pytest.FixtureRequest,
    kind: str,
    reference: str,
) -> None:
    newest = reference == "newest"
    folder = request.getfixturevalue("newest_reference_bin") if newest else DEBIAN
    found = outlive(scene, service, family, make_pod, kind, folder, SILENT_SECONDS)
    assert found == ""


@pytest.mark.parametrize("how", ["no namespace", "GC", "no DEL", "daemon"])
def test_however_the_pod_ends(
    scene: Scene,
    service: Service,
    family: Family,
    make_pod: MakePod,
    podwire_bin: Path,
    start_daemon: StartDaemon,
    how: str,
) -> None:
    if how == "daemon":
        start_daemon(scene.node)
    one, two = (attach(scene, "ptp", podwire_bin, make_pod(), n) for n in ("one", "two"))
    service.listen("one", one.pod, one.address(family))
    service.listen("two", two.pod, two.address(family))
    service.leads_to(one.address(family))
    assert service.send() == "one"
    service.leads_to(two.address(family))
    if how == "GC":
        assert scene.gc(conf_of("ptp"), [("two", "eth0")]).code == 0
    elif how == "no DEL":
        one.pod.vanish()
        three = attach(scene, "ptp", podwire_bin, make_pod(), "three")
        assert three.address(family) == one.address(family)
        service.listen("three", three.pod, three.address(family))
    else:
        end(scene, one, podwire_bin, netns=how == "daemon")
    assert service.send() == "two"


@pytest.mark.parametrize("mode", MODES)
def test_the_next_pod_of_the_address_gets_nothing_of_it(
    scene: Scene,
    service: Service,
    family: Family,
    make_pod: MakePod,
    podwire_bin: Path,
    mode: str,
) -> None:
    """What the client sends after the pod has ended makes its connection anew."""
    one, two = (attach(scene, mode, podwire_bin, make_pod(), n) for n in ("one", "two"))
    service.listen("one", one.pod, one.address(family))
    service.listen("two", two.pod, two.address(family))
    service.leads_to(one.address(family))
    assert service.send() == "one"
    end(scene, one, podwire_bin)
    assert service.send(SILENT_SECONDS) == ""
    service.leads_to(two.address(family))
    assert service.send(SILENT_SECONDS) == "", "the connection is that to the dead pod"
    three = attach(scene, mode, podwire_bin, make_pod(), "three")
    assert three.address(family) == one.address(family)
    service.listen("three", three.pod, three.address(family))
    assert service.send() == "two"


def tracked(scene: Scene, address: str) -> list[str]:
    """The connections of an address, as the kernel lists them."""
    text = scene.node.ns.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    return [line for line in text.splitlines() if f"={ip_address(address).exploded} " in line]


@pytest.mark.parametrize("mode", MODES)
def test_all_that_the_pod_had(scene: Scene, make_pod: MakePod, family: Family, mode: str) -> None:
    """Connections from it and to it, of all protocols; those of other pods stay."""
    conf, outside = netconf(mode, (4, 6), ipMasq=True), scene.node.underlay.ns
    pods = [scene.add(conf, make_pod(), name) for name in ("one", "two")]
    prefix = {4: "10.77.0.0/24", 6: "fd00:77::/64"}[family]
    outside.ip_batch(f"route add {prefix} via {scene.node.address(family)}")
    for protocol in ("tcp", "udp"):
        server = outside.echo(protocol, scene.node.underlay.gateway(family))
        for attached in pods:
            attached.pod.exchange(server)
            outside.exchange(attached.pod.echo(protocol, attached.address(family)))
    for attached in pods:
        assert outside.ping(attached.address(family))
        assert len(tracked(scene, attached.address(family))) >= 5
    one, two = (attached.address(family) for attached in pods)
    others = len(tracked(scene, two))
    scene.delete(pods[0])
    assert tracked(scene, one) == []
    assert len(tracked(scene, two)) == others
