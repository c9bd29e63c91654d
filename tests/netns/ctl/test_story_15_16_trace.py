"""Stories 15 and 16: where does a packet end, and what translates it on its way?

`podwirectl trace` sends real packets and follows them; each fault is named at the hop where it is.
"""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.pytest_netns import Namespace, Node

pytestmark = pytest.mark.xdist_group("podwirectl trace")
POD_MODES = "ptp", "bridge"


@dataclass
class Scene:
    """Two pods on the first node; two on the second, on a bridge."""

    one: Member
    two: Member
    pods: list[Namespace]

    def address(self, number: int, version: int = 4) -> str:
        found = self.pods[number].ip(f"-{version} address show dev eth0 scope global")
        return str(found[0]["addr_info"][0]["local"])

    def command(self, at: Member, *words: object) -> list[str]:
        """A trace on a node."""
        config = str(at.folder / "podwired.yaml")
        return [str(at.podwirectl), "trace", *map(str, words), "-o", "json", "--config", config]

    def trace(self, *words: object, status: int = 0, at: Member | None = None) -> Any:
        at = at or self.one
        # An answer ends the wait for it, however late it comes.
        argv = self.command(at, *words, "--timeout", "10" if status == 0 else "1")
        done = at.node.run(argv, check=False)
        assert done.returncode == status, (done.stdout, done.stderr)
        found = json.loads(done.stdout)
        # Whatever happened, nothing stays.
        assert not has_table(at.node)
        return found

    @contextmanager
    def rules(self, script: str) -> Iterator[None]:
        """Rules of another program on the first node, for a while."""
        self.one.node.run(["nft", "-f", "-"], stdin=render(script))
        try:
            yield
        finally:
            self.one.node.run(["nft", "delete", "table", "inet", "foreign"])


def has_table(where: Node | Namespace) -> bool:
    """Whether a trace's table is there."""
    return "podwire_trace" in where.run(["nft", "list", "tables"]).stdout


PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


@pytest.fixture(scope="module")
def scene(cluster: Cluster, podwire_bin: Path) -> Scene:
    """The second pod of each node has a port of the node."""
    one, two = cluster.members
    plugin = podwire_bin / "podwire"
    ports = {"runtimeConfig": {"portMappings": PORTS}}
    pods = [node.attach(plugin, **conf) for node in (one, two) for conf in ({}, ports)]
    made = Scene(one, two, pods)
    for pod in pods[2:]:  # a bridge's new port forwards a moment late
        eventually(lambda pod=pod: pod.ping(made.address(0)))  # type: ignore[misc]
    return made


def render(script: str) -> str:
    """A table of another program. script: for nft, with \\n at the end of each rule."""
    return "table inet foreign {\n" + script.replace(";", "\n").replace("{", "{\n") + "\n}\n"


def hop(found: Any, where: str) -> Any:
    return next(each for each in found["hops"] if each["where"].startswith(where))


def test_between_pods_of_one_node(scene: Scene) -> None:
    found = scene.trace("c1", "c2")
    print(json.dumps(found, indent=1))
    assert found["reached"]
    assert {each["verdict"] for each in found["hops"]} == {"passed"}
    assert found["hops"][-2]["answers"] >= 1


def test_to_a_pod_of_another_node(scene: Scene) -> None:
    for words in ([scene.address(2)], [f"{scene.address(2)}:81"]):
        found = scene.trace("c1", *words)
        print(json.dumps(found, indent=1))
        assert found["reached"], found
        assert hop(found, "overlay podwire-vxlan")["sent"] >= 1
        uplink = hop(found, "uplink")
        assert (uplink["sent"] >= 1, uplink["answers"] >= 1) == (True, True)
        assert "VXLAN to node-2" in uplink["what"]
    assert found["result"] == "refused"


def test_table_is_for_people(scene: Scene) -> None:
    argv = [scene.one.podwirectl, "trace", "c1", scene.address(2), "--config"]
    done = scene.one.node.run([*map(str, argv), str(scene.one.folder / "podwired.yaml")])
    print(done.stdout)
    assert "reached: answered after" in done.stdout


def test_masquerade_is_marked(scene: Scene) -> None:
    gateway = scene.one.node.underlay.gateway(4)
    found = scene.trace("c1", gateway)
    print(json.dumps(found, indent=1))
    what = hop(found, "node, postrouting")["what"]
    assert f"SNAT {scene.address(0)} to {scene.one.addresses[0]} by rule" in what
    assert "table inet podwire (podwire)" in what
    assert found["reached"]


def test_rules_of_others(scene: Scene) -> None:
    to = scene.address(2)
    chain = "chain f {{ type filter hook {} priority 5; {} }}"
    cases = {
        "node, forward": chain.format("forward", f"ip daddr {to} counter drop;"),
        "node, prerouting": chain.format("prerouting", f"ip daddr {to} drop;"),
        "uplink": chain.format("output", "udp dport 8472 drop;"),
    }
    for where, script in cases.items():
        with scene.rules(script):
            found = scene.trace("c1", to, status=1)
        print(found["summary"])
        assert where in found["summary"], found
        assert "of chain f of table inet foreign (another program)" in found["summary"]
        assert hop(found, where)["verdict"] == "dropped"
    # Rules that reject answer in the destination's name.
    with scene.rules(chain.format("forward", f"ip daddr {to} reject with icmp port-unreachable;")):
        found = scene.trace("c1", to, status=1)
    assert (found["result"], found["reached"]) == ("rejected", False)
    assert "node, forward: dropped by rule" in found["summary"], found
    diverting = f"type nat hook prerouting priority -110; ip daddr {to} dnat ip to 192.0.2.99;"
    with scene.rules(f"chain f {{ {diverting} }}"):
        found = scene.trace("c1", to, status=1)
    assert f"DNAT {to}" in found["summary"]
    assert "of chain f of table inet foreign (another program)" in found["summary"]
    with scene.rules(chain.format("forward", "policy drop;")):
        found = scene.trace("c1", to, status=1)
    assert "the policy of chain f of table inet foreign" in found["summary"]
    # The answer alone.
    with scene.rules(chain.format("forward", f"ip saddr {to} drop;")):
        found = scene.trace("c1", to, status=1)
    print(found["summary"])
    assert "the answer is dropped by rule" in found["summary"]
    assert f"`ip saddr {to} drop`" in found["summary"]


@pytest.mark.parametrize("flavour", ["iptables-nft", "iptables-legacy"])
def test_rules_of_iptables(scene: Scene, flavour: str) -> None:
    for target in ("DROP", "REJECT"):
        rule = ["FORWARD", "-d", scene.address(2), "-j", target]
        scene.one.node.run([flavour, "-I", *rule])
        try:
            found = scene.trace("c1", scene.address(2), status=1)
        finally:
            scene.one.node.run([flavour, "-D", *rule])
        print(found["summary"])
        assert "node, forward" in found["summary"]
        assert f"({flavour})" in found["summary"] or flavour in found["summary"]


def test_what_takes_packets_at_links(scene: Scene) -> None:
    to, pod, node = scene.address(2), scene.pods[0], scene.one.node
    node.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "blackhole"])
    try:
        found = scene.trace("c1", to, status=1)
    finally:
        node.run(["tc", "qdisc", "del", "dev", "eth0", "root"])
    assert "uplink eth0: qdisc blackhole of eth0 may drop packets" in found["summary"]
    found = scene.trace("node", "192.0.2.99", status=1)
    assert "neighbour 192.0.2.99 does not resolve on eth0" in found["summary"], found
    # A pod that does not answer who has its address: what comes back gets no further.
    pod.sysctl("ipv4/conf/all/arp_ignore", "8")
    node.ip(f"neigh flush to {scene.address(0)}")
    try:
        found = scene.trace("c1", to, status=1)
    finally:
        pod.sysctl("ipv4/conf/all/arp_ignore", "0")
    assert f"neighbour {scene.address(0)} does not resolve on pw" in found["summary"]


def test_the_nodes_routes(scene: Scene) -> None:
    to = "198.51.100.7"
    scene.one.node.ip(f"route add blackhole {to}")
    try:
        for words in ([], ["--dry-run"]):
            found = scene.trace("c1", to, *words, status=1)
            print(found["summary"])
            assert "route: the route lookup ends at a blackhole" in found["summary"]
    finally:
        scene.one.node.ip(f"route del blackhole {to}")


@contextmanager
def without_daemon(member: Member) -> Iterator[None]:
    """The daemon repairs nothing for a while."""
    assert member.process is not None
    member.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        member.process.send_signal(signal.SIGCONT)


def test_the_pods_own_part(scene: Scene) -> None:
    pod, to = scene.pods[0], scene.address(2)
    with without_daemon(scene.one):
        (default,) = pod.ip("-4 route show default")
        pod.ip("route del default")
        found = scene.trace("c1", to, status=1)
        assert "hop 1, pod: the pod has no route" in found["summary"]
        pod.ip(f"route add default via {default['gateway']} dev eth0")
        pod.ip("link set eth0 down")
        found = scene.trace("c1", to, status=1)
        assert "hop 1, pod: eth0 of the pod is down" in found["summary"]
        pod.ip("link set eth0 up")
        pod.ip_batch(f"rule add pref 5 to {to} blackhole\n")
        found = scene.trace("c1", to, status=1)
        pod.ip_batch("rule del pref 5\n")
        assert "the pod has a blackhole by rule 5" in found["summary"]
    # Routes and addresses go with the link; the daemon brings them back.
    eventually(lambda: pod.ping(to) and pod.ping(scene.address(2, 6)))


def test_the_node_forwards_nothing(scene: Scene) -> None:
    with without_daemon(scene.one):
        link = hop(scene.trace("c1", scene.address(2), "--dry-run"), "link")["where"].split()[1]
        bridge = scene.one.node.ip(f"link show {link}")[0].get("master", link)
        setting = f"net.ipv4.conf.{bridge}.forwarding"
        scene.one.node.run(["sysctl", "-q", f"{setting}=0"])
        found = scene.trace("c1", scene.address(2), status=1)
        scene.one.node.run(["sysctl", "-q", f"{setting}=1"])
    assert f"{setting} is 0: this node does not forward" in found["summary"]


def test_the_overlay_leads_nowhere(scene: Scene) -> None:
    with without_daemon(scene.one):
        (entry,) = [e for e in scene.one.node.ip("neigh show dev podwire-vxlan")
                    if ":" not in e["dst"]]  # fmt: skip
        scene.one.node.ip(f"neigh del {entry['dst']} dev podwire-vxlan")
        found = scene.trace("c1", scene.address(2), status=1)
        scene.one.node.ip(
            f"neigh replace {entry['dst']} lladdr {entry['lladdr']} dev podwire-vxlan nud permanent"
        )
        assert "has no neighbour entry on podwire-vxlan" in found["summary"]
        scene.one.node.ip("link set podwire-vxlan down")
        found = scene.trace("c1", scene.address(2), status=1)
        wrong = f"route: {scene.address(2)} is of node-2, whose pods are behind podwire-vxlan"
        assert wrong in found["summary"]
    scene.one.node.ip("link set podwire-vxlan up")
    eventually(lambda: all(scene.pods[0].ping(scene.address(2, v)) for v in (4, 6)))


def test_the_other_node_drops(scene: Scene) -> None:
    script = f"chain f {{ type filter hook forward priority 5; ip daddr {scene.address(2)} drop; }}"
    scene.two.node.run(["nft", "-f", "-"], stdin=render(script))
    # A pod may choose another MAC: that is no fault.
    pod = scene.pods[0]
    mac = pod.ip("link show eth0")[0]["address"]
    try:
        pod.ip("link set eth0 address 02:00:00:00:00:77")
        assert pod.ping(scene.one.addresses[0])
        found = scene.trace("c1", scene.address(2), status=1)
    finally:
        pod.ip(f"link set eth0 address {mac}")
        scene.two.node.run(["nft", "delete", "table", "inet", "foreign"])
    print(found["summary"])
    assert "packets left by uplink" in found["summary"]
    assert "nothing came back: run `podwirectl trace node" in found["summary"]
    assert hop(found, "node-2")["verdict"] == "unknown"


def test_packets_that_are_too_big(scene: Scene) -> None:
    assert scene.trace("c1", scene.address(2), "--size", 1400)["reached"]
    found = scene.trace("c1", scene.address(2), "--size", 1480, status=1)
    print(found["summary"])
    assert "1480 bytes do not pass eth0, whose MTU is 1450" in found["summary"]


def test_from_beyond_the_node(scene: Scene) -> None:
    own, pod = scene.one.addresses[0], scene.address(1)
    found = scene.trace("outside", f"{own}:8080")
    print(json.dumps(found, indent=1))
    assert found["result"] == "refused"  # by the pod, where nothing listens
    assert found["source"] == "outside (203.0.113.1)"
    assert (found["hops"][0]["sent"], found["hops"][0]["answers"]) == (1, 1)
    what = hop(found, "node, prerouting")["what"]
    assert f"DNAT {own} port 8080 to {pod} port 80 by rule" in what
    assert "chain host_ports of table inet podwire (podwire)" in what
    assert found["hops"][-2]["sent"] >= 1
    looked_up = scene.trace("outside", f"{own}:8080", "--dry-run")
    assert f"to {pod} port 80 by host port 8080/tcp (podwire)" in json.dumps(looked_up)
    assert [h["where"] for h in looked_up["hops"]] == [h["where"] for h in found["hops"][:-1]]
    # Without the right to give the kernel a packet the way is looked up alone.
    limited = ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"]
    argv = [*limited, *scene.command(scene.one, "outside", f"{own}:8080")]
    unsent = json.loads(scene.one.node.run(argv).stdout)
    assert "no packet was sent: could not pass a frame to link eth0: Operation" in unsent["summary"]
    assert (unsent["reached"], unsent["hops"]) == (None, looked_up["hops"])
    for to in (scene.one.addresses[1], pod, f"{pod}:9/udp", "node-1"):
        assert scene.trace("outside", to)["reached"]
    client = scene.one.node.underlay.gateway(4)
    assert scene.trace(f"outside:{client}", f"[{scene.one.addresses[0]}]:22")["reached"]
    rule = "chain f { type filter hook forward priority 5; iifname eth0 tcp dport 80 drop; }"
    for words in ([], ["--dry-run"]):
        with scene.rules(rule):
            found = scene.trace("outside", f"{own}:8080", *words, status=1)
        assert "node, forward: dropped by rule" in found["summary"]
    with scene.rules("chain f { type filter hook postrouting priority 5; tcp sport 80 drop; }"):
        found = scene.trace("outside", f"{own}:8080", status=1)
    assert "the answer is dropped by rule" in found["summary"]


def test_through_a_host_port(scene: Scene) -> None:
    """Of a pod beside, and of the pod's own: the hairpin; without a bridge, and on one."""
    for node, other, own in ((scene.one, 0, 1), (scene.two, 2, 3)):
        for version, host in zip((4, 6), node.addresses, strict=True):
            pods = scene.address(other, version), scene.address(own, version)
            to = f"{host}:8080" if version == 4 else f"[{host}]:8080"
            for source, address in zip(("c1", "c2"), pods, strict=True):
                found = scene.trace(source, to, at=node)
                assert found["result"] == "refused", found  # by the pod
                what = hop(found, "node, prerouting")["what"]
                assert f"DNAT {host} port 8080 to {pods[1]} port 80 by rule" in what
                assert {h["verdict"] for h in found["hops"]} == {"passed"}, found
                assert found["hops"][-2]["sent"] >= 1, found
                snat = hop(found, "node, postrouting")["what"]
                assert (f"SNAT {address} to" in snat) == (source == "c2"), found
    with scene.rules("chain f { type filter hook forward priority 5; tcp dport 80 drop; }"):
        found = scene.trace("c1", f"{scene.one.addresses[0]}:8080", status=1)
    assert "node, forward: dropped by rule" in found["summary"]


def test_ipv6_and_a_bridge(scene: Scene) -> None:
    for words in ([scene.address(2, 6)], [f"[{scene.address(2, 6)}]:81"]):
        found = scene.trace("c1", *words)
        assert found["reached"], found
        assert hop(found, "overlay podwire-vxlan")["sent"] >= 1
    to = scene.address(0, 6)
    found = scene.trace("c1", to, at=scene.two)
    assert (found["reached"], hop(found, "bridge cni0")["sent"]) == (True, 1), found
    for version in (4, 6):
        found = scene.trace("c1", scene.address(3, version), at=scene.two)
        wheres = [h["where"].split()[0] for h in found["hops"]]
        assert wheres == ["pod", "link", "bridge", "link", "pod", "answer"]
        assert (found["reached"], hop(found, "bridge")["what"]) == (True, "from port to port")
    with without_daemon(scene.two):
        port = found["hops"][3]["where"].split()[1]
        scene.two.node.ip(f"link set {port} nomaster")
        found = scene.trace("c1", scene.address(3), at=scene.two, status=1)
        scene.two.node.ip(f"link set {port} master cni0")
    assert f"link {port}: {port} is no port of cni0" in found["summary"], found


def test_a_trace_that_is_killed_leaves_nothing(scene: Scene) -> None:
    silent = scene.command(scene.one, "c1", "198.51.100.9", "--timeout", "60")
    with subprocess.Popen([*scene.one.node.enter, *silent], stdout=subprocess.PIPE) as process:
        places: list[Node | Namespace] = [scene.one.node, scene.pods[0]]
        eventually(lambda: all(has_table(place) for place in places))
        process.kill()
    eventually(lambda: not any(has_table(place) for place in places))


def test_it_is_repeated_until_interrupted(scene: Scene) -> None:
    argv = scene.command(scene.one, "c1", scene.address(2), "--watch")
    with subprocess.Popen(
        [*scene.one.node.enter, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        seen = 0
        while seen < 2:
            line = process.stdout.readline()
            assert line or process.stderr.read() == b"it goes on"
            seen += line == b"{\n"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() == 0, process.stderr.read()
    assert not has_table(scene.one.node)


def test_what_cannot_be_traced(scene: Scene) -> None:
    argv = [str(scene.one.podwirectl), "trace"]
    for words, message in {
        ("c1", "c2:70000"): "port '70000' is not between 1 and 65535",
        ("c1", "c2:80/icmp"): "ICMP has no ports",
        ("c1", "c2/tcp"): "tcp needs a port",
        ("nobody", "c2"): "'nobody' is no pod",
        ("outside:nobody", "c2"): "'nobody' is no address",
        (f"outside:{scene.one.addresses[0]}", "c2"): "this node's own address: trace from `node`",
        (f"outside:{scene.address(0)}", "c2"): "trace from that pod",
    }.items():
        done = scene.one.node.run([*argv, *words], check=False)
        assert done.returncode == 1
        assert message in done.stderr
