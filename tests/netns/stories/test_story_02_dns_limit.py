"""Story 02: the cloud drops DNS above so many packets a second, and dashboards show nothing."""

import socket
from pathlib import Path

from tests.netns.metrics.conftest import Cluster, cluster, eventually, shows, value
from tests.pytest_netns.underlay import Underlay

__all__ = ["cluster"]

LIMIT = 5
ASKED = 40
UDP = socket.AF_INET, socket.SOCK_DGRAM


def test_story_02_dns_that_the_cloud_drops_shows(
    cluster: Cluster, underlay: Underlay, podwire_bin: Path
) -> None:
    member = cluster.join()
    cluster.settle()
    eventually(lambda: shows(member, 0, "dns_queries_total"))
    resolver = underlay.ns.echo("udp", underlay.gateway(4), 53)
    drop = f"udp dport 53 limit rate over {LIMIT}/minute burst {LIMIT} packets drop"
    chain = "ip cloud edge { type filter hook input priority filter; }"
    script = f"add table ip cloud\nadd chain {chain}\nadd rule ip cloud edge {drop}\n"
    underlay.ns.run(["nft", "-f", "-"], stdin=script)
    pod = member.attach(podwire_bin / "podwire")
    assert pod.exchange(resolver) == member.addresses[0]  # one at a time all is well
    with pod.socket(*UDP) as sock:
        sock.connect(resolver.listens)
        for _ in range(ASKED):
            sock.send(b"query")
    eventually(lambda: shows(member, 1 + ASKED, "dns_queries_total"))
    eventually(lambda: (value(member, "dns_answers_total") or 0) >= LIMIT - 1)
    assert (value(member, "dns_answers_total") or 0) < ASKED / 2
