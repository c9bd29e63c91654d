"""A hundred pods start on one node at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.cluster import KubeCluster
from tests.e2e.figures import Figures, daemon_pss, read_adds
from tests.e2e.pods import addresses_of, server, url

pytestmark = [pytest.mark.needs("kubernetes"), pytest.mark.timeout(900)]

MANY = 100
FULL = 110
"""As many pods as the kubelet's default allows."""


def test_many_pods_start_at_once(
    cluster: KubeCluster, servers: dict[str, list[str]], figures: Figures
) -> None:
    plane, (one, two, _) = cluster.plane, cluster.machines
    names = [f"many-{number}" for number in range(MANY)]
    before, began = read_adds(two), time.monotonic()
    plane.kubectl("create", "-f", "-", stdin="\n---\n".join(server(n, two.name) for n in names))
    created = time.monotonic()
    plane.await_ready("pod", *names, seconds=600)
    seconds, adds = time.monotonic() - began, read_adds(two).since(before)
    found: Any = plane.get("pods", *names)["items"]
    addresses = [address for pod in found for address in addresses_of(pod)]
    assert len({*addresses, *servers[two.name]}) == 2 * (MANY + 1)
    for address in addresses[:2] + addresses[-2:]:
        assert plane.kubectl("exec", one.name, "--", "wget", "-qO-", url(address))
    figures.add(f"{MANY} pods on one node, from the first create to all Ready", seconds, "s")
    figures.add("of it kubectl create", created - began, "s")
    figures.add("their ADDs, mean", 1e3 * adds.seconds / adds.count, "ms")
    for share in (0.5, 0.95, 1):
        figures.add(f"their ADDs, {share:.0%} within", 1e3 * adds.below(share), "ms")
    assert adds.count >= MANY

    more = [f"more-{number}" for number in range(FULL - MANY - 1)]
    plane.kubectl("create", "-f", "-", stdin="\n---\n".join(server(n, two.name) for n in more))
    plane.await_ready("pod", *more)
    time.sleep(10)  # idle
    figures.add(f"PSS of podwired, {FULL} pods on its node", daemon_pss(two), "MB")
    plane.kubectl("delete", "pod", *names, *more, "--wait")
