"""Limits of pods on a node with the daemon: what others do to them is undone."""

from functools import partial
from pathlib import Path
from typing import Any

from tests.netns.bandwidth.limits import LIMITS, qdiscs, redirections
from tests.netns.bandwidth.test_limits import DAMAGE
from tests.netns.routing.conftest import Member, eventually
from tests.netns.routing.traffic import address

Pair = tuple[Member, Member]
MORE = {
    "another root": "tc qdisc replace dev {host} root handle 2: pfifo_fast",
    "another alias": "ip link set {ifb} alias mine",
    "another MTU": "ip link set {ifb} mtu 1300",
    "everything": "tc qdisc del dev {host} root; tc qdisc del dev {host} ingress; "
    "ip link del {ifb}",
}
# Between two commands the daemon may have repaired what the first one did.
EVERY = {name: command for name, (command, _words) in DAMAGE.items() if "&&" not in command} | MORE


def state(member: Member, host: str, ifb: str) -> dict[str, Any]:
    ns = member.node.ns
    numbers = {
        name: [q["options"] for q in found if q["kind"] == "tbf"]
        for name, found in qdiscs(ns).items()
    }
    link = ns.link(ifb) or {}
    traits = {key: link.get(key) for key in ("mtu", "address", "ifalias")}
    return numbers | {"to": redirections(ns, host), "up": "UP" in link.get("flags", ())} | traits


def test_limits_come_back(pair: Pair, podwire_bin: Path) -> None:
    """One pod for all: each damage is repaired before the next."""
    one, _two = pair
    eventually(one.conflist.exists)
    pod = one.make_pod()
    one.pods.append(pod)
    conf = {**one.conf(), "runtimeConfig": {"bandwidth": LIMITS}}
    assert conf["capabilities"]["bandwidth"]
    answer = one.node.cni("ADD", podwire_bin / "podwire", conf, container_id="c1", netns=pod.path)
    assert answer.code == 0, answer
    names = {i["name"][:2]: i["name"] for i in answer.json["interfaces"] if "sandbox" not in i}
    host, ifb = names["pw"], names["bw"]
    before = state(one, host, ifb)
    assert before["to"] == [ifb]
    for damage, command in EVERY.items():
        one.node.run(["sh", "-c", command.format(host=host, ifb=ifb)])
        eventually(partial(_is_repaired, one, host, ifb, before, damage))
        assert one.node.ns.ping(address(pod)), damage
    found = [(r["cause"], r["before"]) for r in one.history("link") if r["action"] == "restored"]
    assert any(cause.startswith("limit was removed by pid ") for cause, _before in found), found
    assert any(f"qdisc tbf of link {host} rate 8000000bit" in before for _c, before in found)
    plugin = podwire_bin / "podwire"
    assert one.node.cni("DEL", plugin, conf, container_id="c1", netns=pod.path).code == 0
    assert one.node.ns.link(ifb) is None


def _is_repaired(member: Member, host: str, ifb: str, before: Any, damage: str) -> Any:
    now = state(member, host, ifb)
    return now == before or (damage, now)
