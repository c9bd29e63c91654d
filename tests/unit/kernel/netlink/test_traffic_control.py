"""Our traffic control messages as pyroute2 reads them, and the kernel's as we read them."""

import socket
from typing import Any

import pytest
from hypothesis import given
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.tcmsg import tcmsg  # type: ignore[import-untyped]

from kernel.model import Link, TokenBucket
from kernel.netlink import codec, traffic_control
from kernel.netlink.codec import Message, attribute, nested, text
from tests.unit.kernel import strategies as nouns
from tests.unit.kernel.netlink.pyroute2_codec import (
    CREATE,
    EXCLUSIVE,
    INDEXES,
    REQUEST,
    decode,
    members,
)

ROOT, INGRESS, RECEIVED = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFFFFF2
FIRST = 1 << 16 | socket.htons(3)  # priority 1, ETH_P_ALL


def fields(found: Any) -> tuple[int, ...]:
    return tuple(found[key] for key in ("index", "handle", "parent", "info"))


@given(nouns.buckets, INDEXES)
def test_buckets(bucket: TokenBucket, index: int) -> None:
    message = traffic_control.set_bucket(bucket, index)
    found = decode(tcmsg, message)
    assert found["header"]["type"] == traffic_control.RTM_NEWQDISC
    assert found["header"]["flags"] == REQUEST | CREATE | codec.NLM_F_REPLACE
    assert fields(found) == (index, 0x10000, ROOT, 0)
    attrs = members(found)
    parms = members(attrs["TCA_OPTIONS"])["TCA_TBF_PARMS"]
    assert attrs["TCA_KIND"] == "tbf"
    assert parms["rate"] == min(bucket.rate, 2**32 - 1)
    assert (parms["buffer"], parms["limit"], parms["peak"]) == (bucket.buffer, bucket.limit, 0)
    # The kernel reports a bucket as it is set.
    assert traffic_control.parse_bucket(message, bucket.link) == bucket
    assert traffic_control.root_of(message) == index
    new = traffic_control.set_bucket(bucket, index, new=True)
    assert (new.flags, new.body) == (CREATE | EXCLUSIVE, message.body)


@given(INDEXES)
def test_roots(index: int) -> None:
    gone = decode(tcmsg, traffic_control.delete_root("pw0", index))
    assert gone["header"]["type"] == traffic_control.RTM_DELQDISC
    assert fields(gone) == (index, 0, ROOT, 0)
    ingress = traffic_control.add_ingress("pw0", index)
    assert traffic_control.root_of(ingress) == 0
    assert traffic_control.parse_bucket(ingress, "pw0") is None
    found = decode(tcmsg, ingress)
    assert found["header"]["flags"] == REQUEST | CREATE | EXCLUSIVE
    assert fields(found) == (index, 0xFFFF0000, INGRESS, 0)
    assert members(found)["TCA_KIND"] == "ingress"


@given(INDEXES, INDEXES)
def test_redirections(index: int, target: int) -> None:
    message = traffic_control.add_redirect("pw0", index, target)
    found = decode(tcmsg, message)
    assert found["header"]["type"] == traffic_control.RTM_NEWTFILTER
    assert fields(found) == (index, 0, RECEIVED, FIRST)
    attrs = members(found)
    options = members(attrs["TCA_OPTIONS"])
    [key] = options["TCA_U32_SEL"]["keys"]
    assert (attrs["TCA_KIND"], key["key_mask"], key["key_val"]) == ("u32", 0, 0)
    [(_name, action)] = options["TCA_U32_ACT"]["attrs"]
    parms = members(members(action)["TCA_ACT_OPTIONS"])["TCA_MIRRED_PARMS"]
    assert members(action)["TCA_ACT_KIND"] == "mirred"
    assert (parms["action"], parms["eaction"], parms["ifindex"]) == (4, 1, target)
    assert traffic_control.parse_redirect(message) == target
    gone = decode(tcmsg, traffic_control.delete_first_filters("pw0", index))
    assert gone["header"]["type"] == traffic_control.RTM_DELTFILTER
    assert fields(gone) == (index, 0, RECEIVED, FIRST)


def changed(message: Message, old: bytes, new: bytes) -> Message:
    assert message.body.count(old) == 1
    return message._replace(body=message.body.replace(old, new))


ALL = traffic_control.add_redirect("pw0", 5, 0x11223344)
OTHERS = {
    "another kind": (text(1, "u32"), text(1, "bpf")),
    "another priority": (FIRST.to_bytes(4, "little"), (FIRST + 0x10000).to_bytes(4, "little")),
    "not every packet": (bytes(24), bytes(13) + b"\xff" + bytes(10)),  # the key's mask
    "a copy": (b"\1\0\0\0\x44\x33\x22\x11", b"\2\0\0\0\x44\x33\x22\x11"),
    "another action": (text(1, "mirred"), text(1, "police")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_filters_are_no_redirection(other: str) -> None:
    assert traffic_control.parse_redirect(changed(ALL, *OTHERS[other])) is None


def test_what_a_dump_has_besides() -> None:
    """A filter's table comes before it, without a selector or actions (net/sched/cls_u32.c)."""
    head = ALL.body[:20] + text(1, "u32")
    assert traffic_control.parse_redirect(Message(0, 0, head)) is None
    table = nested(2, attribute(4, bytes(4)))
    assert traffic_control.parse_redirect(Message(0, 0, head + table)) is None
    other = Message(0, 0, ALL.body[:20] + text(1, "noqueue"))
    assert traffic_control.parse_bucket(other, "pw0") is None


def test_devices() -> None:
    link = Link("bwp0", "ifb", "02:00:00:00:00:01", 1400, alias="set later")
    found = decode(ifinfmsg, traffic_control.create_ifb(link))
    assert found["header"]["flags"] == REQUEST | CREATE | EXCLUSIVE
    assert found["flags"] == 0
    attrs = members(found)
    assert members(attrs.pop("IFLA_LINKINFO")) == {"IFLA_INFO_KIND": "ifb"}
    assert attrs == {
        "IFLA_IFNAME": "bwp0", "IFLA_ADDRESS": "02:00:00:00:00:01", "IFLA_MTU": 1400
    }  # fmt: skip
