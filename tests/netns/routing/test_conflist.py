"""Other programs' plugins in the conflist: they stay, and podwire's entry is as configured."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually

ISTIO = {
    "ambient_enabled": True,
    "exclude_namespaces": ["kube-system"],
    "name": "istio-cni",
    "plugin_log_level": "info",
    "type": "istio-cni",
}
LINKERD = {"name": "linkerd-cni", "policy": {"type": "k8s"}, "type": "linkerd-cni"}


def read(member: Member) -> dict[str, Any]:
    return dict(json.loads(member.conflist.read_bytes()))


def types(member: Member) -> list[str]:
    return [entry["type"] for entry in read(member)["plugins"]]


def write(member: Member, conf: dict[str, Any]) -> None:
    """As an installer does: keys sorted, renamed into place."""
    fresh = member.conflist.with_name(f"{member.conflist.name}.tmp.123")
    fresh.write_text(json.dumps(conf, sort_keys=True, indent=2))
    fresh.rename(member.conflist)


def append(member: Member, *entries: object) -> None:
    conf = read(member)
    conf["plugins"] += entries
    write(member, conf)


def records(member: Member) -> list[tuple[str, str]]:
    found = member.history(f"file {member.conflist}")
    return [(record["action"], record["cause"]) for record in found]


KEPT = ("found", "istio-cni is appended by another program, and stays")
GONE = ("found", "istio-cni is no longer appended by another program")
ADDED = ("added", "this node is ready")
CHANGED = ("changed", "this node is ready")
RESTORED = ("restored", "changed by others")


def test_an_installers_entry_stays_across_changes_restarts_and_goes_with_it(
    cluster: Cluster,
) -> None:
    one = cluster.join()
    eventually(one.is_in_sync)
    (own,) = read(one)["plugins"]
    append(one, ISTIO)
    installed = one.conflist.stat()
    expected = [ADDED, KEPT]
    eventually(lambda: records(one) == expected or records(one))
    append(one, LINKERD)
    eventually(lambda: len(records(one)) == 3 or records(one))
    assert one.conflist.stat().st_ino != installed.st_ino
    # Its own entry is changed by hand: that alone is restored, in a file that stays valid.
    conf = read(one)
    conf["plugins"][0]["mtu"] = 9000
    write(one, conf)
    eventually(lambda: read(one)["plugins"] == [own, ISTIO, LINKERD] or read(one))
    # Another MTU is podwire's change; the daemon is killed, and started with it.
    one.stop(signal.SIGKILL)
    one.start(mtu=1400)
    eventually(lambda: read(one)["plugins"] == [{**own, "mtu": 1400}, ISTIO, LINKERD] or read(one))
    # New ranges.
    cluster.write(node_1={"podCIDRs": [*one.cidrs, "10.244.9.0/24"]})
    eventually(lambda: "10.244.9.0/24" in one.conflist.read_text() or one.log)
    assert types(one) == ["podwire", "istio-cni", "linkerd-cni"]
    assert read(one)["plugins"][1:] == [ISTIO, LINKERD]
    # The installer removes its entry.
    conf = read(one)
    conf["plugins"] = [entry for entry in conf["plugins"] if entry["type"] != "istio-cni"]
    write(one, conf)
    eventually(lambda: records(one)[-1] == GONE or records(one))
    assert types(one) == ["podwire", "linkerd-cni"]
    assert records(one).count(KEPT) == 2, "once for each run of the daemon"


def test_pods_are_attached_beside_an_installers_entry(cluster: Cluster, podwire_bin: Path) -> None:
    one = cluster.join()
    eventually(one.is_in_sync)
    append(one, ISTIO)
    eventually(lambda: KEPT in records(one) or records(one))
    assert one.attach(podwire_bin / "podwire").addresses("eth0")


def test_configured_plugins_come_and_go_with_the_configuration(cluster: Cluster) -> None:
    tuning = {"type": "tuning", "sysctl": {"net.core.somaxconn": "4096"}, "mtu": 1300}
    one = cluster.join(start=False)
    path = one.settings["conflist"]
    one.start(conflist={**path, "plugins": [tuning, {"type": "sbr"}]})
    eventually(one.is_in_sync)
    assert read(one)["plugins"][1:] == [tuning, {"type": "sbr"}]
    append(one, ISTIO)
    conf = read(one)
    del conf["plugins"][1]
    write(one, conf)
    eventually(lambda: types(one) == ["podwire", "tuning", "sbr", "istio-cni"] or types(one))
    one.stop()
    one.start(conflist={**path, "plugins": [{"type": "sbr"}]})
    eventually(lambda: types(one) == ["podwire", "sbr", "istio-cni"] or types(one))


@pytest.mark.parametrize(
    "plugins",
    [
        lambda own: [ISTIO, own],
        lambda own: [own, ISTIO, {**own, "mode": "bridge"}],
        lambda own: [own, {"no": "type"}, ISTIO, "text", None],
        lambda own: [ISTIO],
    ],
    ids=["before podwire's", "a second podwire", "what is no plugin", "podwire's own removed"],
)
def test_podwires_entry_is_first_alone_and_the_file_valid(cluster: Cluster, plugins: Any) -> None:
    one = cluster.join()
    eventually(one.is_in_sync)
    before = read(one)
    write(one, {**before, "plugins": plugins(before["plugins"][0])})
    wanted = {**before, "plugins": [*before["plugins"], ISTIO]}
    eventually(lambda: read(one) == wanted or read(one))
    eventually(lambda: sorted(records(one)) == sorted([ADDED, RESTORED, KEPT]) or records(one))


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[" * 200_000, b'{"podwired": ' + b"9" * 5000 + b"}", b" " * (6 << 20)],
    ids=["empty", "cut off", "deep", "a number too long", "large"],
)
def test_what_is_no_json_is_replaced(cluster: Cluster, damage: bytes) -> None:
    one = cluster.join()
    eventually(one.is_in_sync)
    before = one.conflist.read_bytes()
    one.conflist.write_bytes(damage)
    eventually(lambda: one.conflist.read_bytes() == before or one.log)
    eventually(lambda: records(one) == [ADDED, RESTORED] or records(one))


def test_a_program_that_never_gives_in_fills_no_journal(cluster: Cluster) -> None:
    """The same type configured and appended: an installer that wants its own answers each write."""
    one = cluster.join(start=False)
    one.start(conflist={**one.settings["conflist"], "plugins": [{"type": "istio-cni"}]})
    eventually(one.is_in_sync)
    wanted = read(one)
    for _ in range(20):
        write(one, {**wanted, "plugins": [wanted["plugins"][0], ISTIO]})
        eventually(lambda: read(one) == wanted or read(one))
    assert len(records(one)) < 12, records(one)
    assert one.is_in_sync() is True
