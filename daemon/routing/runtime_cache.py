"""What a runtime notes of the attachments that it had made, by whichever plugin.

libcni keeps a file for each attachment while it lasts, with network, container, CNI_ARGS and result
(libcni/api.go, cachedInfo).
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from cni_plugin.host import RUNTIME_CACHE
from cni_plugin.reclaim import has_lost_namespace
from daemon.files import open_regular
from kernel.model import IPInterface

RESULTS = Path(RUNTIME_CACHE)
_READ_MAX = 1 << 20  # bytes
_FILES_MAX = 10_000
# What a text raises that is no such file, or none of a pod.
_FOREIGN = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Cached:
    """An attachment that a runtime had made for a pod (namespace and name).

    host: the node's link to it; plugin: the first one's type. Empty where the runtime did not note
    them.
    """

    container_id: str
    pod: str
    network: str = ""
    ifname: str = ""
    netns: str = ""
    host: str = ""
    plugin: str = ""
    addresses: tuple[IPInterface, ...] = ()


def parse_cached(data: bytes) -> Cached | None:
    """A file of the cache; None for what is none, or not of a pod of Kubernetes."""
    try:
        raw = json.loads(data)
        arguments = dict(raw["cniArgs"])
        pod = f"{arguments['K8S_POD_NAMESPACE']}/{arguments['K8S_POD_NAME']}"
        container_id = raw["containerId"]
    except _FOREIGN:
        return None
    # What makes a pod's loopback is no plugin that it would be recreated for.
    if not isinstance(container_id, str) or raw.get("ifName") == "lo":
        return None
    return Cached(
        container_id,
        pod,
        _text(raw.get("networkName")),
        _text(raw.get("ifName")),
        _text(raw.get("netns")),
        next(_hosts(raw.get("result")), ""),
        _first_plugin(raw.get("config")),
        tuple(_addresses(raw.get("result"))),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _hosts(result: Any) -> Iterator[str]:
    """The node's ends of pairs: a bridge comes before them, and has no other end."""
    with suppress(*_FOREIGN):
        names = [_text(each["name"]) for each in result["interfaces"] if not each.get("sandbox")]
        yield from reversed(names)


def _addresses(result: Any) -> Iterator[IPInterface]:
    with suppress(*_FOREIGN):
        for each in result["ips"]:
            yield ip_interface(each["address"])


def _first_plugin(config: object) -> str:
    """The type of the first plugin of the configuration, which the cache has in base64."""
    with suppress(*_FOREIGN):
        read = json.loads(base64.b64decode(_text(config)))
        return _text(read["plugins"][0]["type"] if "plugins" in read else read["type"])
    return ""


def read_cached(results: Path = RESULTS) -> list[Cached]:
    """All attachments in a runtime's cache that may last; none where there is no such folder."""
    found = ((read_file(results / name), at) for name, at in list_files(results).items())
    return [each for each, changed in found if each and not is_over(each, changed)]


def is_over(cached: Cached, changed: int) -> bool:
    """Whether the pod is gone. changed: when its file was, in nanoseconds since 1970.

    The cache is on a disk: a runtime that is not asked to delete such a pod leaves its file there.
    """
    if os.path.isdir(os.path.dirname(cached.netns)):
        return has_lost_namespace(cached.netns)
    # In a container namespaces are not seen. No pod outlives a boot.
    return changed < time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def list_files(results: Path) -> dict[str, int]:
    """The files of the cache, and when each changed."""
    try:
        with os.scandir(results) as entries:
            found = {e.name: e.stat().st_mtime_ns for e in entries if e.is_file()}
    except OSError:
        return {}
    return dict(sorted(found.items())[:_FILES_MAX])


def read_file(path: Path) -> Cached | None:
    """The attachment of one file; None where it has none."""
    try:
        with open_regular(path) as file:
            return parse_cached(file.read(_READ_MAX))
    except OSError:
        return None
