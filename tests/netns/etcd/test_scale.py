"""Five thousand nodes in etcd: read page by page, routed to, within the daemon's bounds."""

from functools import partial
from pathlib import Path

import pytest

from tests.netns.etcd.filling import fill
from tests.netns.etcd.server import Etcd
from tests.netns.etcd.test_cluster import cluster, join, outside
from tests.netns.routing.conftest import Cluster, Member, eventually

__all__ = ["cluster", "outside"]

pytestmark = pytest.mark.timeout(400)

COUNT = 5_000
MEGABYTES_MAX = 100


def resident(member: Member) -> int:
    """Megabytes of the daemon's first process."""
    assert member.process is not None
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    return next(int(line.split()[1]) >> 10 for line in status.splitlines() if "VmRSS" in line)


def test_five_thousand_nodes(cluster: Cluster, outside: Etcd, tmp_path: Path) -> None:
    outside.ns.call(partial(fill, outside, COUNT))
    one = join(cluster, outside, clusterCIDRs=["10.96.0.0/11"])
    eventually(lambda: one.status().get("peers") == COUNT or one.log[-2000:], 120)
    eventually(one.is_in_sync, 120)
    assert resident(one) <= MEGABYTES_MAX
    two = join(cluster, outside, clusterCIDRs=["10.96.0.0/11"])
    eventually(lambda: one.status().get("peers") == COUNT + 1 or one.log[-2000:], 120)
    eventually(lambda: two.status().get("peers") == COUNT + 1 or two.log[-2000:], 120)
    eventually(one.is_in_sync, 120)
    assert resident(one) <= MEGABYTES_MAX
