"""`portmap` and `loopback` by these names, behind podwire and behind the reference's plugins."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.netns.host_ports.test_host_ports import BOTH, mapping
from tests.netns.robustness.confs import ipam
from tests.pytest_netns import Namespace, Node

DEBIAN = Path("/usr/lib/cni")
PORTS = {"portMappings": [mapping(8080, 80), mapping(8081, 81, "udp")]}


@pytest.fixture(params=["podwire", "reference"])
def plugins(request: pytest.FixtureRequest, tmp_path: Path, podwire_bin: Path) -> Path:
    """A folder of plugins in which `portmap` and `loopback` are podwire."""
    folder = tmp_path / "bin"
    folder.mkdir()
    ours = (podwire_bin / "podwire").resolve()
    mains = {"podwire": ours, "reference": None}[request.param]
    for name in ("bridge", "ptp", "host-local"):
        (folder / name).symlink_to(mains or DEBIAN / name)
    for name in ("portmap", "loopback"):
        (folder / name).symlink_to(ours)
    return folder


def conf(kind: str, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "chain", "type": kind, **keys}


def main(kind: str) -> dict[str, Any]:
    keys = {"bridge": "br0", "isGateway": True, "hairpinMode": True} if kind == "bridge" else {}
    return conf(kind, ipam={"type": "host-local", **ipam(4, 6)}, **keys)


def chain(node: Node, plugins: Path, kind: str, pod: Namespace, name: str = "c1") -> dict[str, Any]:
    """ADD of both; the result of the last."""
    first = node.cni("ADD", plugins / kind, main(kind), netns=pod.path, container_id=name)
    assert first.code == 0, first
    second = conf("portmap", prevResult=first.json, runtimeConfig=PORTS)
    last = node.cni("ADD", plugins / "portmap", second, netns=pod.path, container_id=name)
    assert last.code == 0, last
    assert {"dns": {}, **last.json} == {"dns": {}, **first.json}
    return last.json


def call(
    node: Node, plugins: Path, verb: str, pod: Namespace, result: dict[str, Any], name: str = "c1"
) -> Any:
    second = conf("portmap", prevResult=result, runtimeConfig=PORTS)
    return node.cni(verb, plugins / "portmap", second, netns=pod.path, container_id=name)


def addresses(result: dict[str, Any]) -> dict[int, str]:
    found = (ip["address"].partition("/")[0] for ip in result["ips"])
    return {6 if ":" in address else 4: address for address in found}


def route_localnet() -> dict[str, str]:
    """The setting of each link of the thread's namespace."""
    files = Path("/proc/sys/net/ipv4/conf").glob("*/route_localnet")
    return {file.parent.name: file.read_text().strip() for file in files}


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_a_mapped_port(node: Node, plugins: Path, pod: Namespace, kind: str) -> None:
    result = chain(node, plugins, kind, pod)
    outside = node.underlay.ns
    servers = {f: pod.echo("tcp", addresses(result)[f], 80) for f in BOTH}
    for family, server in servers.items():
        assert outside.exchange(server, to=(node.address(family), 8080))
        assert pod.exchange(server, to=(node.address(family), 8080))
    assert node.ns.exchange(servers[4], to=("127.0.0.1", 8080))
    assert call(node, plugins, "CHECK", pod, result).code == 0
    node.ns.run(["nft", "delete element inet podwire any_host_ports4 { tcp . 8080 }"])
    damaged = call(node, plugins, "CHECK", pod, result)
    assert (damaged.json["code"], "any_host_ports4" in damaged.json["msg"]) == (102, True)
    for _ in range(2):
        assert call(node, plugins, "DEL", pod, result).code == 0
        assert not outside.reaches(servers[6], to=(node.address(6), 8080))
    assert set(node.ns.call(route_localnet).values()) == {"0"}
    assert servers[4].listens[0] in {
        a["local"] for a in pod.ip("address show eth0")[0]["addr_info"]
    }
    assert node.cni("DEL", plugins / kind, main(kind), netns=pod.path).code == 0
    assert "podwire" not in node.ns.run(["nft", "list", "ruleset"]).stdout


def test_a_port_that_another_pod_has(node: Node, plugins: Path, make_pod: Any) -> None:
    one, two = make_pod(), make_pod()
    result = chain(node, plugins, "bridge", one)
    first = node.cni("ADD", plugins / "bridge", main("bridge"), netns=two.path, container_id="c2")
    refused = call(node, plugins, "ADD", two, first.json, "c2")
    assert refused.json["code"] == 106
    assert "8080/tcp is held by c1 (eth0 on chain)" in refused.json["msg"]
    server = one.echo("tcp", addresses(result)[4], 80)
    assert node.underlay.ns.exchange(server, to=(node.address(4), 8080))
    gc = conf("portmap", cniVersion="1.1.0", **{"cni.dev/valid-attachments": []})
    assert node.cni("GC", plugins / "portmap", gc).code == 0
    # The main plugin's GC removes the pod itself.
    stays = (plugins / "bridge").resolve().samefile((plugins / "portmap").resolve())
    to, seconds = (node.address(4), 8080), 30 if stays else 2
    assert node.underlay.ns.reaches(server, to=to, seconds=seconds) == stays


def test_a_port_of_a_pod_that_is_gone(node: Node, plugins: Path, make_pod: Any) -> None:
    """It ended without a DEL."""
    gone, pod = make_pod(), make_pod()
    chain(node, plugins, "ptp", gone)
    gone.vanish()
    result = chain(node, plugins, "ptp", pod, "c2")
    server = pod.echo("tcp", addresses(result)[4], 80)
    assert node.underlay.ns.exchange(server, to=(node.address(4), 8080))


def test_gc_without_a_list(node: Node, plugins: Path, make_pod: Any, podwire_bin: Path) -> None:
    """The main plugin does not know the links of another plugin's pods."""
    stays, goes = make_pod(), make_pod()
    result = chain(node, plugins, "bridge", stays)
    second = conf("portmap", runtimeConfig={"portMappings": [mapping(8090, 80)]})
    gone = node.cni("ADD", plugins / "bridge", main("bridge"), netns=goes.path, container_id="c2")
    more = {**second, "prevResult": gone.json}
    added = node.cni("ADD", plugins / "portmap", more, netns=goes.path, container_id="c2")
    assert added.code == 0
    goes.vanish()
    bare = conf("podwire", cniVersion="1.1.0")
    assert node.cni("GC", podwire_bin / "podwire", bare).code == 0
    server = stays.echo("tcp", addresses(result)[4], 80)
    assert node.underlay.ns.exchange(server, to=(node.address(4), 8080))
    assert "8090" not in node.ns.run(["nft", "list", "table", "inet", "podwire"]).stdout
    assert call(node, plugins, "DEL", stays, result).code == 0


def test_it_must_be_chained(node: Node, plugins: Path, pod: Namespace) -> None:
    alone = conf("portmap", runtimeConfig=PORTS)
    answer = node.cni("ADD", plugins / "portmap", alone, netns=pod.path)
    assert (answer.json["code"], "prevResult" in answer.json["msg"]) == (7, True)
    assert node.cni("DEL", plugins / "portmap", alone, netns=pod.path).code == 0


@pytest.mark.parametrize("program", [DEBIAN / "loopback", None], ids=["reference", "podwire"])
def test_loopback(node: Node, plugins: Path, pod: Namespace, program: Path | None) -> None:
    pod.ip_batch("link set lo down")
    answer = node.cni(
        "ADD", program or plugins / "loopback", conf("loopback"), netns=pod.path, ifname="lo"
    )
    assert answer.code == 0, answer
    assert answer.json == json.loads(json.dumps(answer.json)) | {
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": str(pod.path)}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}],
    }
    assert "UP" in pod.link("lo")["flags"]  # type: ignore[index]
    check = conf("loopback", prevResult=answer.json)
    assert node.cni("CHECK", plugins / "loopback", check, netns=pod.path).code == 0
    pod.ip_batch("link set lo down")
    assert node.cni("CHECK", plugins / "loopback", check, netns=pod.path).json["code"] == 102
    assert node.cni("DEL", plugins / "loopback", check, netns=pod.path).code == 0
