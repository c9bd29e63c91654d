"""The recipes that people copy, across two nodes, in both families, with TCP, UDP and SCTP."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.netns.policy.conftest import MODES, World, labelled, policy
from tests.netns.policy.sctp import arrives

WEB, CLIENT, DB, OTHER = "app/web", "app/client", "app/db", "other/tool"
ALL = {WEB, CLIENT, DB, OTHER}
EVERYTHING = set(permutations(ALL, 2))


def without(*pairs: tuple[str, str]) -> set[tuple[str, str]]:
    """All pairs but those that match; an empty end matches all."""
    return {
        (a, b) for a, b in EVERYTHING if not any(x in ("", a) and y in ("", b) for x, y in pairs)
    }


@pytest.mark.parametrize("mode", MODES)
def test_story_28_recipes(world: World) -> None:
    one, two = world.members
    world.pod(one, "app", "web", app="web")
    world.pod(one, "app", "client", role="client")
    world.pod(two, "app", "db", app="db")
    world.pod(two, "other", "tool", app="tool")
    world.write_pods(app={"team": "a"}, other={"team": "b"})
    world.expect(EVERYTHING)

    # Deny all to an app.
    world.enforce(policy("app", "deny", podSelector=labelled(app="web"), ingress=[]))
    world.expect(without(("", WEB)))
    world.expect(without(("", WEB)), "udp", 53)

    # Limit an app to some clients, at one port.
    limited = policy(
        "app",
        "limit",
        podSelector=labelled(app="web"),
        ingress=[{"from": [{"podSelector": labelled(role="client")}], "ports": [{"port": "web"}]}],
    )
    world.enforce(limited)
    world.expect(without((DB, WEB), (OTHER, WEB)))
    world.expect(without(("", WEB)), port=81)

    # Deny all in a namespace, both ways but for DNS.
    dns = {"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 53}]}
    closed = policy("app", "closed", policyTypes=["Ingress", "Egress"], egress=[dns])
    world.enforce(closed)
    inside = [(a, b) for a, b in EVERYTHING if "app/" in a + b]
    world.expect(without(*inside))
    world.expect(without(*((a, b) for a, b in inside if b != OTHER)), "udp", 53)

    # Ports of SCTP, from the same node and the other one.
    sctp = [{"ports": [{"protocol": "SCTP", "port": 7777}]}]
    world.enforce(policy("app", "sctp", podSelector=labelled(app="web"), ingress=sctp))
    web, client, db, _tool = world.pods
    tries = [(source, port) for source in (client, db) for port in (7777, 7778)]
    assert [arrives(source, web, port) for source, port in tries] == [True, False] * 2

    # Deny other namespaces; policies add up.
    world.enforce(policy("app", "own", ingress=[{"from": [{"podSelector": {}}]}]), limited)
    world.expect(without((OTHER, WEB), (OTHER, CLIENT), (OTHER, DB)))

    # Allow a namespace by its labels.
    b = {"namespaceSelector": labelled(team="b"), "podSelector": labelled(app="tool")}
    world.enforce(policy("app", "b", podSelector=labelled(app="db"), ingress=[{"from": [b]}]))
    world.expect(without((WEB, DB), (CLIENT, DB)))

    # Allow external clients, not those of the cluster.
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}}
    six = {"ipBlock": {"cidr": "::/0", "except": ["fd00:10:244::/48"]}}
    world.enforce(
        policy("app", "out", podSelector=labelled(app="db"), ingress=[{"from": [block, six]}])
    )
    world.expect(without(("", DB)))

    # `ingress: [{}]` allows everything; no policy at all, too.
    world.enforce(policy("app", "open", ingress=[{}]))
    world.expect(EVERYTHING)
    world.enforce()
    world.expect(EVERYTHING)
    tables = one.node.run(["nft", "list", "tables"]).stdout
    assert "podwire-policy" not in tables
