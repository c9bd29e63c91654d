"""Five thousand nodes in etcd: read page by page, routed to, within the daemon's bounds."""

import base64
import json
from functools import partial
from pathlib import Path

import pytest

from daemon.log import Log
from daemon.sources.etcd.credentials import Credentials
from daemon.sources.etcd.gateway import Gateway
from tests.netns.etcd.server import PASSWORD, PREFIX, USER, Etcd
from tests.netns.etcd.test_cluster import cluster, join, outside
from tests.netns.routing.conftest import Cluster, Member, eventually

__all__ = ["cluster", "outside"]

pytestmark = [pytest.mark.xdist_group("etcd"), pytest.mark.timeout(400)]

COUNT = 5_000
MEGABYTES_MAX = 100
_BATCH = 40  # etcd takes 128 operations in a transaction


def fill(etcd: Etcd, count: int) -> None:
    """Nodes with a subnet each, as their daemons would write them."""
    certificate, key = etcd.client_files
    credentials = Credentials(
        etcd.authority.certificate, certificate, key, USER, etcd.password_file
    )
    gateway = Gateway(etcd.urls, credentials, Log())
    assert credentials.read_password() == PASSWORD
    for start in range(0, count, _BATCH):
        puts = [put for n in range(start, start + _BATCH) for put in member(n)]
        body = {"compare": [], "success": puts, "failure": []}
        assert gateway.call("/kv/txn", body)["succeeded"]
    gateway.close()


def member(number: int) -> list[dict[str, dict[str, str]]]:
    """The keys of one."""
    high, low = divmod(number, 250)
    subnet = f"10.{100 + high}.{low}.0"
    record = {"addresses": [f"192.168.{high}.{low + 1}"], "podCIDRs": [f"{subnet}/24"]}
    pairs = {
        f"{PREFIX}/v1/nodes/far-{number}": json.dumps(record),
        f"{PREFIX}/v1/subnets/ipv4/{subnet}-24": f"far-{number}",
    }
    encode = base64.b64encode
    return [
        {"request_put": {"key": encode(k.encode()).decode(), "value": encode(v.encode()).decode()}}
        for k, v in pairs.items()
    ]


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
