"""What the daemon says of pods that another plugin attached."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest

from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing.reporter import Reporter
from daemon.routing.runtime_cache import Cached, read_cached
from daemon.routing.unwired_pods import UnwiredPods, describe
from tests.unit.daemon.clusters import settings


def test_the_text_names_few_and_counts_all() -> None:
    assert describe([]) == ""
    assert describe([Cached("1", "a/b")]).startswith("1 pod was attached by another plugin (a/b):")
    other = describe([Cached("1", "a/b", plugin="calico")])
    assert other.startswith("1 pod was attached by another plugin (a/b by calico):")
    many = [Cached(str(n), f"a/{n}") for n in range(9)]
    assert describe([*many, *many]).startswith("9 pods were attached by another plugin (a/0, ")
    assert "(a/0, a/1, a/2, ...: `podwirectl pods` lists them)" in describe(many)


HERE = "/proc/self/ns/net"
BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize(
    ("netns", "changed", "plugin"),
    [
        (HERE, 0.0, "flannel"),
        (HERE, BOOTED - 10, "flannel"),
        ("{folder}/gone", 0.0, ""),
        ("/nowhere/seen", 0.0, "podwire"),
        ("/nowhere/seen", BOOTED - 10, ""),
        ("", 0.0, "flannel"),
    ],
    ids=["there", "clock set later", "gone", "unseen", "unseen before boot", "unknown"],
)
def test_pods_that_are_gone_are_not_reported(
    netns: str, changed: float, plugin: str, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    config = base64.b64encode(json.dumps({"type": plugin or "podwire"}).encode()).decode()
    arguments = [["K8S_POD_NAMESPACE", "app"], ["K8S_POD_NAME", "web"]]
    noted = {"containerId": "c1", "ifName": "eth0", "cniArgs": arguments, "config": config}
    file = results / "net-c1-eth0"
    file.write_text(json.dumps({**noted, "netns": netns.format(folder=tmp_path)}))
    if changed:
        os.utime(file, (changed, changed))
    assert [each.plugin for each in read_cached(results)] == ([plugin] if plugin else [])
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log("error"))
    UnwiredPods(settings(f"dataDir: {tmp_path}"), reporter, results).check()
    assert reporter.faults["unwired"] == (
        describe([Cached("c1", "app/web", plugin=plugin)]) if plugin else ""
    )
