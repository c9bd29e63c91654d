"""Story 26: the metrics that one needs when the network of a cluster is in trouble."""

import json
import os
import subprocess
from pathlib import Path

from tests.netns.metrics.conftest import Cluster, Member, cluster, eventually, samples, shows, value

__all__ = ["cluster"]

FAST = {"interval": 1}
STATES = {"established", "connecting", "pending", "retrying", "failed"}


def test_story_26_each_metric_of_the_list_is_there_and_moves(
    cluster: Cluster, podwire_bin: Path
) -> None:
    plugin = podwire_bin / "podwire"
    one, two, _three = (cluster.join(health=FAST) for _ in range(3))
    cluster.settle()
    eventually(lambda: shows(one, 2, "peer_connections", state="established"))
    assert states_of(one) == STATES
    assert value(one, "peer_connections_terminated_total") == 0
    own = {"network": "podwire", "family": "ipv4"}
    assert value(one, "ipam_addresses_in_use", **own) == 0
    assert value(one, "ipam_addresses_size", **own) == 253
    assert value(one, "ipam_pending_allocations") == 0
    eventually(lambda: shows(one, 0, "dns_queries_total"))

    pod, other = one.attach(plugin), two.attach(plugin)
    assert value(one, "ipam_addresses_in_use", **own) == 1
    address = next(a.partition("/")[0] for a in other.addresses("eth0") if "." in a)
    resolver = other.echo("udp", address, 53)
    pod.exchange(resolver)
    assert (value(one, "dns_queries_total"), value(one, "dns_answers_total")) == (1, 1)

    # The underlay loses node-2: one of two others, which own the same number of addresses.
    two.node.run(["ip", "link", "set", "eth0", "down"])
    eventually(lambda: shows(one, 1, "peers_unreachable"))
    ratio = "peers_unreachable_addresses_ratio"
    eventually(lambda: shows(one, 0.5, ratio, family="ipv4"))
    eventually(lambda: shows(one, 1, "peer_connections", state="failed"))
    eventually(lambda: shows(one, 1, "peer_connections", state="established"))
    assert value(one, "peer_connections_terminated_total") == 1
    two.node.run(["ip", "link", "set", "eth0", "up"])
    eventually(lambda: shows(one, 0, "peers_unreachable"))
    eventually(lambda: shows(one, 2, "peer_connections", state="established"))


def states_of(member: Member) -> set[str]:
    name = "podwire_peer_connections"
    return {dict(labels)["state"] for found, labels in samples(member) if found == name}


def test_story_26_pods_that_wait_for_addresses_are_pending(
    cluster: Cluster, podwire_bin: Path
) -> None:
    member = cluster.join()
    cluster.settle()
    folder = member.folder / "plugins"
    folder.mkdir()
    slow = folder / "host-local"
    # An IPAM plugin that hangs until the test lets go of it.
    slow.write_text(f"#!/bin/sh\nwhile [ ! -e {folder}/go ]; do sleep 0.05; done\nexit 1\n")
    slow.chmod(0o755)
    conf = {
        "cniVersion": "1.0.0",
        "name": "slow",
        "type": "podwire",
        "ipam": {"type": "host-local"},
    }
    pod = member.make_pod()
    call = subprocess.Popen(
        [*member.node.enter, podwire_bin / "podwire"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "slow",
            "CNI_NETNS": str(pod.path),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(folder),
        },
    )
    assert call.stdin is not None
    call.stdin.write(json.dumps(conf).encode())
    call.stdin.close()
    eventually(lambda: shows(member, 1, "ipam_pending_allocations"))
    (folder / "go").touch()
    assert call.wait(60) == 1
    eventually(lambda: shows(member, 0, "ipam_pending_allocations"))
