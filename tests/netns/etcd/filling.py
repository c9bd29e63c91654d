"""Many nodes in an etcd, as their daemons would write them."""

import base64
import json

from daemon.log import Log
from daemon.sources.etcd.gateway import Gateway
from tests.netns.etcd.conftest import settings_of
from tests.netns.etcd.server import PREFIX, Etcd

_BATCH = 40  # etcd takes 128 operations in a transaction


def fill(etcd: Etcd, count: int, prefix: str = PREFIX) -> None:
    """Nodes with a subnet each, as their daemons would write them."""
    gateway = Gateway(settings_of(etcd.settings()), Log())
    for start in range(0, count, _BATCH):
        puts = [put for n in range(start, start + _BATCH) for put in member(n, prefix)]
        body = {"compare": [], "success": puts, "failure": []}
        assert gateway.call("/kv/txn", body)["succeeded"]
    gateway.close()


def member(number: int, prefix: str) -> list[dict[str, dict[str, str]]]:
    """The keys of one."""
    high, low = divmod(number, 250)
    subnet = f"10.{100 + high}.{low}.0"
    record = {"addresses": [f"192.168.{high}.{low + 1}"], "podCIDRs": [f"{subnet}/24"]}
    pairs = {
        f"{prefix}/v1/nodes/far-{number}": json.dumps(record),
        f"{prefix}/v1/subnets/ipv4/{subnet}-24": f"far-{number}",
    }
    encode = base64.b64encode
    return [
        {"request_put": {"key": encode(k.encode()).decode(), "value": encode(v.encode()).decode()}}
        for k, v in pairs.items()
    ]
