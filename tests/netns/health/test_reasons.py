"""What breaks between two nodes is told apart, by real packets; and is over when it is over."""

from __future__ import annotations

import signal

import pytest

from tests.netns.health.conftest import (
    FAST,
    PORT,
    Grow,
    allow_again,
    expect,
    expect_well,
    health,
    nft,
    uplink,
)

VXLAN = 8472


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_an_overlay_that_is_blocked(grow: Grow, outer: str) -> None:
    one, two = grow(underlay=outer)
    nft(two, f"input udp dport {VXLAN} drop", f"output udp dport {VXLAN} drop")
    address = two.addresses[outer == "ipv6"]
    expect(one, two, "overlay-blocked", f"answers at {address}", f"UDP port {VXLAN}")
    expect(two, one, "overlay-blocked", f"UDP port {VXLAN}")
    done = one.node.run(
        [one.podwired, "status", "--config", one.folder / "podwired.yaml"], check=False
    )
    assert done.returncode == 1
    assert "! " in done.stdout
    assert "node-2 is not reached (overlay-blocked)" in done.stdout
    assert "1 failed" in done.stdout
    # What it keeps itself is as planned.
    assert one.status()["inSync"]
    assert one.conflist.exists()
    allow_again(two)
    expect_well([one, two])
    assert "reached again: node-2" in one.log
    assert one.status()["troubles"] == []
