"""Many sources in one process: `python -m tests.bench.kubernetes.herd`, told by its input what."""

from __future__ import annotations

import json
import sys
import threading
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.sources.kubernetes.client import KubernetesClient
from daemon.sources.remote import RemoteSource


def main() -> None:
    """Read what is wanted, say `ready`, wait for a line, run; say what each source took."""
    wanted = json.loads(sys.stdin.readline())
    threading.stack_size(1 << 20)
    print("ready", flush=True)
    sys.stdin.readline()
    sources = [_start(wanted, name) for name in wanted["names"]]
    began = time.monotonic()
    done: dict[int, float] = {}
    found: dict[int, int] = {}
    while len(done) < len(sources) and time.monotonic() - began < wanted["seconds"]:
        for number, source in enumerate(sources):
            snapshot = source.poll()
            found[number] = len(snapshot.nodes) if snapshot else found.get(number, 0)
            whole = (
                found[number] >= wanted["nodes"]
                and source.activity.last_received
                and not source.fault
            )
            if number not in done and whole:
                done[number] = time.monotonic() - began
        time.sleep(0.05)
    faults = sorted({source.fault for source in sources} - {""})
    said = {"seconds": list(done.values()), "bytes": [s.activity.bytes for s in sources]}
    print(json.dumps({**said, "faults": faults[:3]}), flush=True)
    closers = [threading.Thread(target=source.close) for source in sources]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()


def _start(wanted: Any, name: str) -> RemoteSource:
    folder = Path(wanted["folder"], name)
    folder.mkdir(exist_ok=True)
    log = Log("error")
    cidrs = tuple(map(ip_network, wanted["cidrs"]))
    settings = KubernetesSettings(cluster_cidrs=cidrs, kubeconfig=Path(wanted["kubeconfig"]))
    made = KubernetesClient(settings, node=name, log=log)
    return RemoteSource(made, last_known=folder / "cluster.json", log=log)


if __name__ == "__main__":
    main()
