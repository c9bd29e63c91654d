"""A pod's mapped ports on a node with the daemon: what others do to them is undone."""

from pathlib import Path

import pytest

from tests.netns.routing.conftest import Member, eventually
from tests.netns.routing.traffic import address

Pair = tuple[Member, Member]
MAP = "inet podwire any_host_ports4"
DAMAGE = {
    "taken out": f"delete element {MAP} {{ tcp . 8080 }}",
    "map flushed": f"flush map {MAP}",
    "rules flushed": "flush chain inet podwire host_ports",
    "ruleset flushed": "flush ruleset",
    "led elsewhere": f"delete element {MAP} {{ tcp . 8080 }}\n"
    f"add element {MAP} {{ tcp . 8080 : 10.244.1.99 . 80 }}",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_mapped_port_comes_back(pair: Pair, podwire_bin: Path, damage: str) -> None:
    one, two = pair
    eventually(one.conflist.exists)
    pod = one.make_pod()
    one.pods.append(pod)
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    conf = {**one.conf(), "runtimeConfig": {"portMappings": ports}}
    assert conf["capabilities"]["portMappings"]
    answer = one.node.cni("ADD", podwire_bin / "podwire", conf, container_id="c1", netns=pod.path)
    assert answer.code == 0, answer
    server, to = pod.echo("tcp", address(pod), 80), (one.addresses[0], 8080)
    assert two.node.ns.exchange(server, to=to) == two.addresses[0]
    known = len(one.history("nftables"))
    one.node.run(["nft", "-f", "-"], stdin=DAMAGE[damage])
    eventually(lambda: two.node.ns.reaches(server, to=to) or one.log)
    eventually(lambda: "restored" in [r["action"] for r in one.history("nftables")[known:]])
