"""An API server that is broken, or somebody else's: no answer takes the source down.

None of these can be had of a real one, so it is an impostor that answers.
"""

from __future__ import annotations

import gzip
import time
import zlib
from pathlib import Path

import pytest

from tests.cluster.authority import Authority, make_authority
from tests.cluster.follower import Follower, eventually
from tests.cluster.impostor import (
    GOOD,
    Answer,
    Impostor,
    Raw,
    Stream,
    event,
    item,
    listed,
    own_node,
    said,
)

GROWTH_MAX = 64 << 20
"""Bytes that an answer of any size may cost."""


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


HTML = Raw(200, b"<html><body>Welcome! Please log in.</body></html>", "text/html")
DEEP = b'{"apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":' + b"[" * 500_000


def make_bomb() -> bytes:
    """600 MB when unpacked; nobody who is careful comes to the missing end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    head = packer.compress(b'{"items":[') + packer.flush(zlib.Z_FULL_FLUSH)
    # What follows a full flush stands for itself, as often as it is sent (zlib manual, deflate).
    return head + 600 * (packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH))


GZIP = (("Content-Encoding", "gzip"),)

LISTS: dict[str, Answer] = {
    "a page for people": HTML,
    "nothing": Raw(),
    "half a list": Raw(200, listed(item(2), item(3)).body[:-60]),
    "no items": said({"kind": "NodeNetworkList", "metadata": {"resourceVersion": "7"}}),
    "items that are none": said({"metadata": {"resourceVersion": "7"}, "items": {"a": 1}}),
    "no version": said({"metadata": {}, "items": []}),
    "another type": said([1, 2, 3]),
    "deep": Raw(200, DEEP),
    "a gzip bomb": Raw(200, make_bomb(), headers=GZIP),
    "no gzip": Raw(200, b"\x1f\x8b\x08 not at all", headers=GZIP),
    "half a gzip": Raw(200, gzip.compress(listed(item(2)).body)[:-20], headers=GZIP),
    "too many requests": Raw(429, b"{}", headers=(("Retry-After", "1"),)),
    "an error without words": Raw(500, b""),
    "unavailable": Raw(503, b"<h1>503</h1>", "text/html"),
    "a redirect": Raw(302, b"", headers=(("Location", "https://127.0.0.1:1/elsewhere"),)),
    "one endless header": Raw(200, b"{}", headers=(("X-Long", "a" * 900_000),)),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_bad_list_is_a_fault_and_passes(impostor: Impostor, one: Follower, what: str) -> None:
    before = resident()
    impostor.set(list=LISTS[what])
    one.start()
    eventually(lambda: (impostor.counts["list"] > 1 and one.fault != "") or one.describe())
    assert set(one.routes()) <= {"n2", "n3"}
    assert "secret-1" not in one.fault + one.log.text
    assert resident() - before < GROWTH_MAX
    impostor.set()
    one.await_routes(GOOD)


@pytest.mark.parametrize("what", ["a page for people", "deep", "an error without words", "nothing"])
def test_a_bad_list_later_changes_nothing(impostor: Impostor, one: Follower, what: str) -> None:
    one.start().await_routes(GOOD)
    gone = event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"})
    impostor.set(list=LISTS[what], watch=Stream((gone,), ends=True))
    one.await_fault("since 20")
    time.sleep(1)
    assert one.routes() == GOOD
    changes = event("ADDED", item(4, "1101")), event("DELETED", item(3, "1102"))
    impostor.set(list=listed(item(2), item(4), version="1200"), watch=Stream(changes))
    one.await_routes({"n2": GOOD["n2"], "n4": ["10.244.4.0/24"]})


MENDED = Stream((event("MODIFIED", own_node()),))
"""A watch of the own Node, which was changed since the list."""

NODES: dict[str, Answer] = {
    "a page for people": HTML,
    "a Node of another name": listed({**own_node(), "metadata": {"name": "n9", "uid": "u"}}),
    "no uid": listed({**own_node(), "metadata": {"name": "n1"}}),
    "garbage": listed({**own_node(), "spec": {"podCIDRs": 7}, "status": []}),
    "addresses without end": listed(
        {**own_node(), "status": {"addresses": [{"type": "InternalIP", "address": 5}] * 100_000}}
    ),
    "pod CIDRs of other things": listed(
        {**own_node(), "spec": {"podCIDRs": ["0.0.0.0/0", "10.244.1.0/24\n", "x" * 9000]}}
    ),
    "control characters": listed(
        {
            **own_node(),
            "metadata": {"name": "n1", "uid": "u\x1b[2J\r\n"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1\x1b[31m"}]},
        }
    ),
    "an error": Raw(500, b"oh"),
}


@pytest.mark.parametrize("what", NODES)
def test_a_bad_node_is_a_fault_and_passes(impostor: Impostor, one: Follower, what: str) -> None:
    impostor.set(node=NODES[what])
    one.start()
    eventually(lambda: one.fault != "" or one.describe())
    assert one.fault.isprintable()
    assert "n9" not in one.nodes()
    impostor.set(heartbeats=MENDED)
    one.await_routes(GOOD)
    eventually(lambda: "n1" in one.nodes() or one.describe())


def test_a_node_may_be_as_large_as_the_api_takes_it(impostor: Impostor, one: Follower) -> None:
    """etcd takes 1.5 MiB: annotations without end, control characters in what is not used."""
    made = own_node()
    made["metadata"]["annotations"] = {f"a/{n}": "\x00\x1b[2J\n" * 400 for n in range(200)}
    made["status"]["images"] = [{"names": ["x" * 9000]}] * 50
    impostor.set(node=listed(made), heartbeats=Stream((event("MODIFIED", made),)))
    one.start().await_routes(GOOD)
    eventually(lambda: "n1" in one.nodes() or one.describe())


NEW = event("ADDED", item(5, "1005"))

LINES: dict[str, bytes] = {
    "no JSON": b"<html>\n",
    "no object": b'[1,2]\n7\nnull\n"text"\n',
    "no type": b'{"object":{}}\n',
    "an unknown type": event("EXPLODED", item(6, "1001")),
    "no metadata": event("ADDED", {"spec": {}}),
    "a name that is none": event("ADDED", {"metadata": {"name": "../../etc/passwd"}}),
    "a name that is a list": event("MODIFIED", {"metadata": {"name": ["n2"]}}),
    "no version": event("ADDED", {**item(2), "metadata": {"name": "n2"}}),
    "a deletion of nobody": event("DELETED", item(77, "1001")),
    "a deletion without a name": event("DELETED", {"metadata": {}}),
    "deep": b'{"type":"ADDED","object":' + b"[" * 400_000 + b"]" * 400_000 + b"}\n",
    "long": b'{"type":"ADDED","object":"' + b"a" * (40 << 20) + b'"}\n',
    "a bookmark without a version": event("BOOKMARK", {"metadata": {}}),
    "bytes that are no text": bytes(range(128, 256)) * 64 + b"\n",
    "nothing but lines": b"\n" * 100_000,
    "numbers": b'{"type":"ADDED","object":{"metadata":{"name":1e999,"resourceVersion":1e999}}}\n',
}


@pytest.mark.parametrize("what", LINES)
def test_a_bad_event_is_passed_over(impostor: Impostor, one: Follower, what: str) -> None:
    one.start().await_routes(GOOD)
    before = resident()
    impostor.set(watch=Stream((LINES[what], NEW)))
    wanted = {**GOOD, "n5": ["10.244.5.0/24"]}
    # Some are reason enough to look at the whole list again.
    impostor.answers["list"] = listed(item(2), item(3), item(5), version="1100")
    eventually(lambda: one.routes() == wanted or one.describe())
    assert resident() - before < GROWTH_MAX
    impostor.set(list=listed(item(2), item(3), item(5), version="1100"))
    one.await_routes(wanted)


def test_a_line_without_end_is_bounded(impostor: Impostor, one: Follower) -> None:
    one.start().await_routes(GOOD)
    before = resident()
    endless = b'{"type":"ADDED","object":"', *[b"x" * (1 << 20)] * 200
    impostor.set(watch=Stream(endless, ends=True))
    counts = impostor.counts["watch"]
    eventually(lambda: impostor.counts["watch"] > counts + 1 or one.describe())
    assert resident() - before < GROWTH_MAX
    assert one.routes() == GOOD


def test_watches_that_end_at_once_are_not_opened_in_a_hurry(
    impostor: Impostor, one: Follower
) -> None:
    one.start().await_routes(GOOD)
    impostor.set(watch=Stream(ends=True))
    before = impostor.counts["watch"]
    time.sleep(4)
    assert impostor.counts["watch"] - before < 40
    assert one.routes() == GOOD
    impostor.set()
    one.await_routes(GOOD)


EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}


@pytest.mark.parametrize(
    "answer", [said(EXPIRED, 410), Stream((event("ERROR", EXPIRED),), ends=True)]
)
def test_an_api_that_forgets_its_own_lists_is_not_asked_in_a_hurry(
    impostor: Impostor, one: Follower, answer: Answer
) -> None:
    one.start().await_routes(GOOD)
    impostor.set(watch=answer)
    one.await_fault("answers the watch of what it has just listed with 410", "since 20")
    before = impostor.counts["list"]
    time.sleep(4)
    assert impostor.counts["list"] - before < 40
    assert one.routes() == GOOD
    impostor.set()
    one.await_routes(GOOD)


def test_an_api_that_counts_back_is_not_asked_in_a_hurry(impostor: Impostor, one: Follower) -> None:
    one.start().await_routes(GOOD)
    later = event("BOOKMARK", {"metadata": {"resourceVersion": "1001"}})
    impostor.set(watch=Stream((later,), ends=True))  # and lists are of 1000
    one.await_fault("went back in time")
    before = impostor.counts["list"]
    time.sleep(4)
    assert impostor.counts["list"] - before < 60
    assert one.routes() == GOOD
    impostor.set()
    one.await_routes(GOOD)


def test_a_first_start_waits_for_its_turn_in_a_large_cluster(
    impostor: Impostor, one: Follower
) -> None:
    head = {"resourceVersion": "1000", "remainingItemCount": 9_999_999, "continue": "next"}
    impostor.set(survey=said({"metadata": head, "items": [item(2)]}))
    one.start()
    eventually(lambda: impostor.counts["survey"] == 1 or one.describe())
    time.sleep(2)
    assert set(impostor.counts) == {"survey"}  # the wait is random, of up to 28 hours


@pytest.mark.parametrize("version", ["v1.29.14-eks-1", "v1.0", "v0.99.1", "new", ""])
def test_an_api_that_is_too_old_is_named_and_not_used(
    impostor: Impostor, one: Follower, version: str
) -> None:
    impostor.set(version=said({"gitVersion": version}))
    one.start()
    known = version.startswith("v")
    one.await_fault(f"Kubernetes 1.30 or newer is needed, not {version}" if known else "version")
    assert set(impostor.counts) <= {"survey", "version"}
    impostor.set(version=said({"gitVersion": "v1.30.0"}))
    one.await_routes(GOOD)


def test_a_node_without_pod_cidrs_is_told(impostor: Impostor, one: Follower) -> None:
    impostor.set(node=listed({**own_node(), "spec": {}}))
    one.start()
    one.await_fault("Node n1 has no podCIDRs yet", "--allocate-node-cidrs?")
    impostor.set(heartbeats=MENDED)
    one.await_routes(GOOD)


def test_the_advice_is_told_whatever_the_api_says(impostor: Impostor, one: Follower) -> None:
    long = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no " * 200}
    impostor.set(list=said(long, 403))
    one.start()
    one.await_fault("packaging/kubernetes/rbac.yaml applied, for this namespace?")


def test_tokens_go_nowhere_else(impostor: Impostor, authority: Authority, one: Follower) -> None:
    elsewhere = Impostor(authority)
    try:
        host, port = elsewhere.address
        away = Raw(307, b"", headers=(("Location", f"https://{host}:{port}/api/v1/nodes/n1"),))
        impostor.set(node=away, list=away, watch=away, write=away)
        one.start()
        one.await_fault("307")
        assert not elsewhere.counts
        assert impostor.tokens == {"Bearer secret-1"}
    finally:
        elsewhere.close()


def test_somebody_elses_certificate_is_refused(
    impostor: Impostor, one: Follower, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Impostor(make_authority(tmp_path_factory.mktemp("stranger")))
    try:
        text = one.kubeconfig.read_text()
        one.kubeconfig.write_text(
            text.replace(str(impostor.server_port), str(stranger.server_port))
        )
        one.start()
        one.await_fault("certificate")
        assert not stranger.counts
    finally:
        stranger.close()
