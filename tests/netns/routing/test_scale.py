"""Five thousand nodes: all are routed, and a change of one touches one."""

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually

COUNT = 5000
PATIENCE = 240.0
"""Seconds that a busy machine may need for so many."""


def listed(number: int) -> dict[str, object]:
    """A node that exists in the list alone."""
    high, low = divmod(number, 250)
    return {
        "name": f"peer-{number}",
        "addresses": [f"198.18.{high}.{low + 1}"],
        "podCIDRs": [f"10.{128 + (number >> 8)}.{number & 255}.0/24"],
    }


def write(cluster: Cluster, me: Member, peers: list[dict[str, object]]) -> None:
    mine = {"name": me.name, "addresses": me.addresses[:1], "podCIDRs": me.cidrs[:1]}
    fresh = cluster.file.with_suffix(".new")
    fresh.write_text(json.dumps({"nodes": [mine, *peers]}, indent=1))
    fresh.rename(cluster.file)


def processor_seconds(member: Member) -> float:
    assert member.process is not None
    fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(member: Member) -> str:
    assert member.process is not None
    lines = Path(f"/proc/{member.process.pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("VmHWM"))


def has(member: Member, entries: int) -> object:
    status = member.status()
    counts = status.get("wanted"), status.get("inSyncEntries", status.get("inSync"))
    return (status.get("wanted") == entries and status.get("inSync")) or (
        counts,
        member.log,
    )


@pytest.mark.timeout(900)
def test_five_thousand_nodes(cluster: Cluster) -> None:
    me = cluster.prepare()
    peers = [listed(number) for number in range(COUNT)]
    write(cluster, me, peers)
    begin = time.monotonic()
    me.start()
    eventually(partial(has, me, 3 * COUNT), PATIENCE)
    print(f"\n{COUNT} peers after {time.monotonic() - begin:.2f} s from the daemon's start")
    assert len(me.routes()) == COUNT
    print(memory(me))
    time.sleep(3)  # the kernel's own words on 5,000 FDB entries are read meanwhile
    before, began = processor_seconds(me), time.monotonic()
    time.sleep(5)
    used = (processor_seconds(me) - before) / (time.monotonic() - began)
    print(f"idle: {100 * used:.2f} % of a core")
    length = len(me.history())
    peers[77]["podCIDRs"] = ["10.99.77.0/24"]
    write(cluster, me, peers)
    eventually(lambda: me.has_route("10.99.77.0/24"), PATIENCE)
    eventually(partial(has, me, 3 * COUNT), PATIENCE)
    told = {record["object"] for record in me.history()[length:]}
    assert all("10.99.77" in name or "10.128.77" in name for name in told if "node" in name), told
    me.node.run(["ip", "route", "flush", "proto", "113"])
    begin = time.monotonic()
    eventually(lambda: me.has_route("10.99.77.0/24"), PATIENCE)
    eventually(partial(has, me, 3 * COUNT), PATIENCE)
    print(f"all routes flushed: back after {time.monotonic() - begin:.2f} s")
    me.node.run(["ip", "link", "del", "podwire-vxlan"])
    begin = time.monotonic()
    eventually(lambda: len(me.routes()) == COUNT and len(me.fdb()) == COUNT, PATIENCE)
    print(f"device deleted: all back after {time.monotonic() - begin:.2f} s")
    print(memory(me), f"{processor_seconds(me):.2f} s of processor")
    print(me.log)
