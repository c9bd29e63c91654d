"""A pod's own members of podwire's nftables sets, taken out one by one, come back."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.netns.routing.conftest import Member, eventually
from tests.pytest_netns import Namespace

Pair = tuple[Member, Member]

# A bridge of its own with checked ports, beside the network that the daemon writes.
GUARDED = {
    "cniVersion": "1.1.0",
    "name": "guarded",
    "type": "podwire",
    "mode": "bridge",
    "bridge": "guard0",
    "isGateway": True,
    "macspoofchk": True,
    "ipam": {"ranges": [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd00:66::/64"}]]},
}
SETS = {
    "hairpin4": "inet", "hairpin6": "inet", "checked_ports": "bridge", "allowed_macs": "bridge",
    "allowed_addresses4": "bridge", "allowed_addresses6": "bridge", "checked_sources": "inet",
}  # fmt: skip
COUNTS = {"allowed_addresses6": 2}


def members(member: Member, name: str) -> list[tuple[str, ...]]:
    """What is in a set, in order; each member by its fields."""
    found = member.node.run(["nft", "-j", "list", "set", SETS[name], "podwire", name])
    [listed] = [item["set"] for item in json.loads(found.stdout)["nftables"] if "set" in item]
    fields = (e["concat"] if isinstance(e, dict) else [e] for e in listed.get("elem", ()))
    return sorted(tuple(field) for field in fields)


def are(member: Member, name: str, wanted: list[tuple[str, ...]]) -> object:
    """True where the set has just these members, else what it has."""
    found = members(member, name)
    return found == wanted or (found, member.log)


def is_recorded(member: Member, before: str) -> object:
    """True where the journal has a record of that, else all its records of rules."""
    found = member.history("nftables")
    return before in [record["before"] for record in found] or found


def missing(name: str, fields: tuple[str, ...]) -> str:
    """How the journal describes an element that was missing."""
    return f"element {name} {' . '.join(fields)} of nft table {SETS[name]} podwire is missing"


def delete(member: Member, name: str, fields: tuple[str, ...]) -> None:
    element = " . ".join((f'"{fields[0]}"', *fields[1:]))
    argv = ["nft", "delete", "element", SETS[name], "podwire", name, f"{{ {element} }}"]
    member.node.run(argv)


@pytest.fixture
def guarded(pair: Pair, podwire_bin: Path) -> Namespace:
    """A pod on the first node's bridge, beside one of the daemon's network."""
    one, _two = pair
    one.attach(podwire_bin / "podwire")
    pod = one.make_pod()
    answer = one.node.cni("ADD", podwire_bin / "podwire", GUARDED, netns=pod.path)
    assert answer.code == 0, answer
    return pod


def test_single_members_come_back(pair: Pair, guarded: Namespace) -> None:
    one, _two = pair
    for name in SETS:
        before = members(one, name)
        assert len(before) == COUNTS.get(name, 1)
        victim = before[0]
        delete(one, name, victim)
        eventually(partial(are, one, name, before))
        eventually(partial(is_recorded, one, missing(name, victim)))
        last = one.history("nftables")[-1]
        assert last["action"] == "restored"
        assert last["cause"].startswith("changed by pid ")
    assert guarded.ping("10.66.0.1")


@pytest.mark.parametrize("name", ["masquerade4", "internal4", "hairpin4", "cluster4", "cluster6"])
def test_flushed_sets_come_back_and_are_told(pair: Pair, podwire_bin: Path, name: str) -> None:
    one, _two = pair
    one.attach(podwire_bin / "podwire")
    list_set = ["nft", "list", "set", "inet", "podwire", name]
    before, length = one.node.run(list_set).stdout, len(one.history("nftables"))
    assert "elements" in before
    one.node.run(["nft", "flush", "set", "inet", "podwire", name])
    eventually(lambda: one.node.run(list_set).stdout == before or one.log)
    eventually(lambda: len(one.history("nftables")) > length or one.log)
    [told] = one.history("nftables")[length:]
    assert told["action"] == "restored"
    assert told["cause"].startswith("changed by pid ")
    assert f"element {name} " in told["before"]
    assert told["before"].endswith(" of nft table inet podwire is missing")
    assert "restored nftables rules" in one.log


def test_what_a_pod_took_along_stays_away(
    pair: Pair, guarded: Namespace, podwire_bin: Path
) -> None:
    one, _two = pair
    length = len(one.history())
    conf = podwire_bin / "podwire", GUARDED
    assert one.node.cni("DEL", *conf, netns=guarded.path).code == 0
    kept = members(one, "hairpin4")
    assert len(kept) == 1
    one.node.run(["nft", "flush", "set", "inet", "podwire", "hairpin4"])
    eventually(partial(are, one, "hairpin4", kept))
    assert members(one, "allowed_macs") == members(one, "checked_ports") == []
    # Coming and going of pods is no drift, and so not told.
    eventually(lambda: len(one.history()) > length)
    assert [record["before"] for record in one.history()[length:]] == [missing("hairpin4", kept[0])]
