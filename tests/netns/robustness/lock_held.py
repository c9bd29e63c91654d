"""Calls as executed programs make them, one after the other, each in an interpreter of its own.

Run as a program on a node: `python -I lock_held.py`, with a list of [verb, program, conf, pod] on
standard input. Prints for each call the modules that it loaded while it had the store locked.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def loaded_under_lock(verb: str, program: str, conf: dict[str, Any], pod: str) -> list[str]:
    from cni_plugin.handle import handle
    from cni_plugin.host import Host
    from ipam.store import Store, Transaction

    loaded: set[str] = set()
    transaction = Store.transaction

    @contextmanager
    def watched(store: Store) -> Iterator[Transaction]:
        with transaction(store) as tx:
            before = set(sys.modules)
            yield tx
            loaded.update(set(sys.modules) - before)

    Store.transaction = watched  # type: ignore[assignment,method-assign]
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": pod,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }
    reply = handle(env, json.dumps(conf).encode(), Host(program=program))
    if reply.status:
        raise RuntimeError(f"{verb} {program}: {reply.stdout.decode()}")
    return sorted(loaded)


def main() -> None:
    for call in json.loads(sys.stdin.read()):
        if os.fork() == 0:
            print(json.dumps(loaded_under_lock(*call)), flush=True)
            os._exit(0)
        if os.wait()[1]:
            sys.exit(1)


if __name__ == "__main__":
    main()
