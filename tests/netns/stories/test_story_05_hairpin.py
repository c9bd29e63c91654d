"""A pod calls its own service, and the load balancer picks the pod itself.

The answer must come back through the node, so the request must have the node's address: else the
pod sees a packet from itself and drops it, one time in as many as the service has pods.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.robustness.confs import BRIDGE, MODES, ipam, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace
from tests.pytest_netns.underlay import Family

SERVICE: dict[Family, str] = {4: "10.96.0.10", 6: "fd00:96::10"}
DEBIAN = Path("/usr/lib/cni")


def make_service(scene: Scene, attached: Attached, family: Family, port: int) -> tuple[str, int]:
    """A service's address that the node translates to the pod's own, as kube-proxy does."""
    protocol = {4: "ip", 6: "ip6"}[family]
    target = {4: attached.address(4), 6: f"[{attached.address(6)}]" if family == 6 else ""}[family]
    rule = f"{protocol} daddr {SERVICE[family]} tcp dport 80 dnat to {target}:{port}"
    scene.node.ns.run(
        ["nft", "-f", "-"],
        stdin=f"""
            table {protocol} service {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat
                    {rule}
                }}
            }}""",
    )
    return SERVICE[family], 80


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("masq", [False, True], ids=["plain", "masq"])
def test_pod_reaches_itself(
    scene: Scene, pod: Namespace, mode: str, family: Family, masq: bool
) -> None:
    keys = {"ipMasq": True} if masq else {"hairpinMode": True}
    attached = scene.add(netconf(mode, (4, 6), **keys), pod)
    server = pod.echo("tcp", attached.address(family))
    service = make_service(scene, attached, family, server.listens[1])
    seen = pod.exchange(server, to=service)
    assert seen != attached.address(family)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mode", MODES)
def test_other_pods_keep_their_address(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str, family: Family
) -> None:
    attached = scene.add(netconf(mode, (4, 6)), make_pod(), "server")
    client = scene.add(netconf(mode, (4, 6)), make_pod(), "client")
    server = attached.pod.echo("tcp", attached.address(family))
    service = make_service(scene, attached, family, server.listens[1])
    if mode == "ptp":  # on a bridge the answer would take the short way, untranslated
        assert client.pod.exchange(server, to=service) == client.address(family)
    assert client.pod.exchange(server) == client.address(family)


@pytest.mark.parametrize("mode", MODES)
def test_still_after_the_address_changed_hands(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str
) -> None:
    one = {"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}
    conf = netconf(mode, ipam={**one, "routes": [{"dst": "0.0.0.0/0"}]}, hairpinMode=True)
    scene.delete(scene.add(conf, make_pod(), "before"))
    attached = scene.add(conf, make_pod(), "after")
    server = attached.pod.echo("tcp", attached.address(4))
    service = make_service(scene, attached, 4, server.listens[1])
    assert attached.pod.exchange(server, to=service) != attached.address(4)


@pytest.mark.parametrize("plugin", ["reference", "podwire under its name"])
def test_bridge_without_hairpin_mode_drops_it(
    scene: Scene, pod: Namespace, podwire_bin: Path, plugin: str
) -> None:
    """What the reference plugin does by default, and podwire where it stands in for it."""
    folder = DEBIAN if plugin == "reference" else podwire_bin
    conf = {
        "cniVersion": "1.0.0",
        "name": "robust",
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": False,
        "ipam": {"type": "host-local", **ipam(4)},
    }
    answer = scene.node.cni("ADD", folder / "bridge", conf, netns=pod.path)
    assert answer.code == 0, answer
    attached = Attached(pod, "c1", "eth0", conf, answer.json)
    server = pod.echo("tcp", attached.address(4))
    service = make_service(scene, attached, 4, server.listens[1])
    assert scene.node.ns.exchange(server)
    assert not pod.reaches(server, to=service)
