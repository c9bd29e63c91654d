"""Pods that come and go are podwire's own doing: nothing of that is anybody's damage."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.netns.routing.test_members import are, delete, is_recorded, members, missing
from tests.pytest_netns import Namespace

CLIENTS, ROUNDS = 2, 15
ATTEMPTS = 3
"""On a busy machine a call may take longer than the daemon lets one have (`nft_rules.GRACE`)."""
ALONE = {"PODWIRE_SOCKET": "/nowhere"}
"""Where no daemon answers, the executable does it itself."""


def conf_of(member: Member) -> dict[str, Any]:
    """What the daemon wrote, as a runtime hands it to a plugin."""
    listed = json.loads(member.conflist.read_text())
    return {**listed["plugins"][0], **{key: listed[key] for key in ("name", "cniVersion")}}


def churn(
    member: Member, plugin: Path, number: int, over: threading.Event, env: dict[str, str]
) -> int:
    """ADD and DEL of one pod again and again, so often at least and until it is over; how often."""
    pod, conf, rounds = member.make_pod(), conf_of(member), 0
    while rounds < ROUNDS or not over.is_set():
        who: dict[str, Any] = {"container_id": f"churn{number}-{rounds}", "netns": pod.path}
        for verb in ("ADD", "DEL"):
            answer = member.node.cni(verb, plugin, conf, env=env, **who)
            assert answer.code == 0, (answer, member.log)
        rounds += 1
    return rounds


@contextmanager
def churning(member: Member, plugin: Path, env: dict[str, str]) -> Iterator[None]:
    """Several clients at work meanwhile."""
    over = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = [pool.submit(churn, member, plugin, n, over, env) for n in range(CLIENTS)]
        try:
            yield
        finally:
            over.set()
        assert all(job.result() >= ROUNDS for job in jobs)


@pytest.fixture
def lonely(cluster: Cluster) -> Member:
    """A cluster of one node, whose daemon has its own usual configuration."""
    member = cluster.join()
    eventually(member.conflist.exists)
    eventually(member.is_in_sync)
    return member


@pytest.mark.parametrize("env", [{}, ALONE], ids=["daemon", "executable"])
def test_pods_that_come_and_go_are_no_external_change(
    lonely: Member, podwire_bin: Path, env: dict[str, str]
) -> None:
    recorded = None
    for _ in range(ATTEMPTS):
        length, before = len(lonely.history()), len(lonely.log)
        with churning(lonely, podwire_bin / "podwire", env):
            pass
        records = lonely.history()[length:]
        recorded = [r for r in records if r["action"] in ("found", "restored")]
        if not recorded:
            break
    assert recorded == []
    assert "restored nftables" not in lonely.log[before:]
    assert "overlaps" not in lonely.log


@pytest.mark.parametrize("env", [{}, ALONE], ids=["daemon", "executable"])
def test_damage_among_them_is_repaired_and_reported(
    lonely: Member, podwire_bin: Path, env: dict[str, str]
) -> None:
    stayed: Namespace = lonely.attach(podwire_bin / "podwire")
    [address] = [a.split("/")[0] for a in stayed.addresses("eth0") if a.startswith("10.244.")]
    [before] = [m for m in members(lonely, "hairpin4") if m[1] == address]
    with churning(lonely, podwire_bin / "podwire", env):
        delete(lonely, "hairpin4", before)
        eventually(lambda: before in members(lonely, "hairpin4") or lonely.log)
        eventually(lambda: is_recorded(lonely, missing("hairpin4", before)))
    eventually(lambda: are(lonely, "hairpin4", [before]))
    recorded = [r for r in lonely.history() if r["action"] in ("found", "restored")]
    named = [r for r in recorded if missing("hairpin4", before) in r["before"]]
    assert len(named) == 1, recorded
