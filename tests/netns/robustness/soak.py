"""Thousands of ADD/DEL pairs in one process, in threads, as a daemon would serve them.

Run as a program on a node: `python -I soak.py PAIRS`, with {"conf", "pods"} on standard input.
Prints what the process holds after warm-up and at the end.
"""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

WORKERS = 4
WARM_UP = 40


def pair(conf: bytes, pod: str, container_id: str) -> None:
    from cni_plugin.handle import handle
    from cni_plugin.host import Host

    for verb in ("ADD", "DEL"):
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": pod,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/nowhere",
        }
        reply = handle(env, conf, Host(log=lambda line: print(line, file=sys.stderr)))
        if reply.status:
            raise RuntimeError(f"{verb} {container_id}: {reply.stdout.decode()}")


def run(conf: bytes, pods: list[str], pairs: int, prefix: str) -> None:
    """Each worker has a pod of its own."""

    def work(worker: int) -> None:
        for number in range(pairs // WORKERS):
            pair(conf, pods[worker], f"{prefix}-{worker}-{number}")

    with ThreadPoolExecutor(WORKERS) as threads:
        for done in [threads.submit(work, worker) for worker in range(WORKERS)]:
            done.result()


def holdings() -> dict[str, Any]:
    fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]]
    kinds = sorted(name.partition(":")[0] for name in fds)
    children = Path("/proc/thread-self/children").read_text().split()
    return {"descriptors": kinds, "threads": threading.active_count(), "children": children}


def main() -> None:
    given = json.loads(sys.stdin.read())
    conf, pods = json.dumps(given["conf"]).encode(), given["pods"]
    run(conf, pods, WARM_UP, "warm")
    before = holdings()
    run(conf, pods, int(sys.argv[1]), "soak")
    print(json.dumps({"before": before, "after": holdings()}))


if __name__ == "__main__":
    main()
