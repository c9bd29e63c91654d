"""The metrics of `podwired run`; no fault of theirs affects the daemon."""

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from daemon.liveness.watchdog import LIMIT
from tests import ROOT
from tests.netns.metrics.conftest import (
    PORT,
    Cluster,
    Member,
    eventually,
    samples,
    shows,
    value,
)
from tests.netns.metrics.programs import fetch, promtool


@pytest.fixture
def member(cluster: Cluster) -> Member:
    """A node alone."""
    made = cluster.join()
    cluster.settle()
    return made


def ask(member: Member, path: str) -> tuple[int, str]:
    status, body = fetch(member.node, "127.0.0.1", PORT, path)
    return status, body.decode()


def test_names_types_and_help_please_promtool(pair: tuple[Member, Member]) -> None:
    one, _two = pair
    eventually(lambda: shows(one, 1, "peer_connections", state="established"))
    for accept in ("text/plain;version=0.0.4", ""):
        _status, body = fetch(one.node, "127.0.0.1", PORT, "/metrics", Accept=accept)
        assert promtool("check", "metrics", stdin=body) == (0, "")
    _status, body = fetch(
        one.node, "127.0.0.1", PORT, "/metrics", Accept="application/openmetrics-text;version=1.0.0"
    )
    assert body.endswith(b"# EOF\n")


def test_no_series_names_a_pod_or_a_peer(pair: tuple[Member, Member], podwire_bin: Path) -> None:
    one, two = pair
    eventually(lambda: shows(one, 1, "peer_connections", state="established"))
    one.attach(podwire_bin / "podwire")
    series = samples(one)
    texts = {text for _name, labels in series for _key, text in labels}
    assert one.name in texts  # the node itself has a name
    assert two.name not in texts
    assert not {"c1", "eth0", *two.addresses, *two.cidrs} & texts


def test_health_checks_report_whether_the_node_is_ready(cluster: Cluster) -> None:
    member = cluster.join()
    cluster.settle()
    assert ask(member, "/healthz") == (200, "alive\n")
    assert ask(member, "/readyz") == (200, "ready\n")
    assert ask(member, "/")[0] == 404
    assert value(member, "ready") == 1
    cluster.prepare()
    cluster.write(node_1=None)
    member.stop()
    member.start()
    eventually(lambda: "node-1" in ask_if_up(member, "/readyz")[1] or ask_if_up(member, "/readyz"))
    assert ask(member, "/readyz")[0] == 503
    assert ask(member, "/healthz")[0] == 200
    assert (value(member, "ready"), value(member, "fault", part="node")) == (0, 1)


PROBE = ROOT / "packaging" / "image" / "podwire-probe"


def probed(cluster: Cluster) -> Member:
    """A node whose daemon is not started yet, and is to write what a container's probes read."""
    member = cluster.prepare()
    member.environment["PODWIRE_HEALTH"] = str(member.folder / "health")
    cluster.write()
    return member


def probe(member: Member, kind: str) -> str:
    """The answer of one, which it gives by its exit status, too."""
    done = member.node.run(["sh", PROBE, kind], env=member.environment, check=False)
    assert (done.returncode == 0) == (done.stdout.strip() == kind), done
    return done.stdout.strip()


@pytest.mark.parametrize("metrics", [False, {"listen": "[::1]:9000"}, {}])
def test_probes_ask_whatever_metrics_say(cluster: Cluster, metrics: object) -> None:
    """With {} another program has the port."""
    member = probed(cluster)
    assert probe(member, "alive") == "podwired has just started"
    with member.node.ns.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        member.start(metrics=metrics)
        for kind in ("alive", "ready"):
            eventually(lambda kind=kind: probe(member, kind) == kind or member.log)  # type: ignore[misc]
        member.stop()
        cluster.prepare()
        cluster.write(node_1=None)
        member.start()
        eventually(lambda: "node-1" in probe(member, "ready") or member.log)
        assert probe(member, "alive") == "alive"


def test_a_daemon_that_knows_that_it_is_stuck_is_not_alive(cluster: Cluster) -> None:
    member = probed(cluster)
    member.start()
    eventually(lambda: probe(member, "alive") == "alive" or member.log)
    [helper, *_more] = helpers(member)
    os.kill(helper, signal.SIGSTOP)
    text = "no progress: calls of process 2"
    eventually(lambda: probe(member, "alive") == text or member.log, LIMIT + 30)
    assert ask(member, "/healthz") == (503, f"{text}\n")
    os.kill(helper, signal.SIGCONT)
    eventually(lambda: ask(member, "/healthz") == (200, "alive\n") or member.log)
    eventually(lambda: probe(member, "alive") == "alive" or member.log)


def ask_if_up(member: Member, path: str) -> tuple[int, str]:
    try:
        return ask(member, path)
    except OSError as error:
        return 0, str(error)


def test_calls_are_counted_with_their_codes_and_addresses_with_them(
    member: Member, podwire_bin: Path
) -> None:
    plugin = podwire_bin / "podwire"
    pod = member.attach(plugin)
    member.attach(plugin)
    listed = json.loads(member.conflist.read_text())
    conf = {**listed["plugins"][0], "name": listed["name"], "cniVersion": "1.0.0"}
    again = member.node.cni("ADD", plugin, conf, container_id="c1", netns=pod.path)
    assert again.json["code"] == 103
    done = member.node.cni("DEL", plugin, conf, container_id="c1", netns=pod.path)
    assert done.code == 0
    # A call is answered first, and counted then.
    for (verb, code), count in CALLS.items():
        eventually(partial(shows, member, count, "cni_calls_total", verb=verb, code=code))
    name = "cni_call_duration_seconds"
    eventually(partial(shows, member, 2, f"{name}_count", verb="ADD", result="success"))
    assert value(member, f"{name}_bucket", verb="ADD", result="error", le="+Inf") == 1
    assert 0 < (value(member, f"{name}_sum", verb="DEL", result="success") or 0) < 30
    for family in ("ipv4", "ipv6"):
        labels = {"network": "podwire", "family": family}
        assert value(member, "ipam_addresses_in_use", **labels) == 1
        assert value(member, "ipam_addresses_resting", **labels) == 1
        assert (value(member, "ipam_oldest_resting_address_seconds", **labels) or 0) > 0
    assert value(member, "ipam_addresses_size", network="podwire", family="ipv4") == 253
    assert value(member, "ipam_addresses_size", network="podwire", family="ipv6") == 2.0**64 - 2
    eventually(partial(shows, member, 0, "ipam_pending_allocations"))


CALLS = {("ADD", "0"): 2, ("ADD", "103"): 1, ("DEL", "0"): 1, ("ADD", "100"): 0}


def test_no_call_is_lost_whichever_process_served_it(member: Member, podwire_bin: Path) -> None:
    calls, at_once = 64, 16
    conf = {"cniVersion": "1.1.0", "name": "other", "type": "podwire", "ipam": {"ranges": RANGES}}

    def ask_status(number: int) -> int:
        done = member.node.cni("STATUS", podwire_bin / "podwire", conf, container_id=f"s{number}")
        return done.code

    def storm() -> list[int]:
        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(ask_status, range(calls)))

    assert storm() == [0] * calls
    eventually(partial(shows, member, calls, "cni_calls_total", verb="STATUS", code="0"))
    for helper in helpers(member):
        os.kill(helper, signal.SIGKILL)
    eventually(lambda: helpers(member) == [] or helpers(member))
    assert storm() == [0] * calls
    eventually(partial(shows, member, 2 * calls, "cni_calls_total", verb="STATUS", code="0"))
    eventually(partial(shows, member, 0, "cni_calls_in_flight", verb="STATUS"))
    eventually(partial(shows, member, 1, "fault", part="calls"))


RANGES = [[{"subnet": "10.99.0.0/24"}]]


def helpers(member: Member) -> list[int]:
    """Processes that the daemon forked."""
    assert member.process is not None
    pid = member.process.pid
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_drift_is_counted_by_kind_when_it_is_repaired(pair: tuple[Member, Member]) -> None:
    one, two = pair
    one.node.run(["ip", "route", "del", two.cidrs[0]])
    one.node.run(["ip", "-6", "route", "del", two.cidrs[1]])
    one.node.ns.sysctl("ipv4/ip_forward", "0")
    one.node.run(["ip", "link", "set", "podwire-vxlan", "mtu", "1300"])
    one.node.run(["nft", "delete", "table", "inet", "podwire"])
    one.conflist.write_text(one.conflist.read_text().replace("1450", "1400"))
    # Of the table two parts of the daemon bring back what is theirs.
    wanted = {"route": 2, "sysctl": 1, "link": 1, "nftables": 2, "file": 1, "fdb": 0}
    for kind, count in wanted.items():
        for name in ("drift_detected_total", "drift_repaired_total"):
            eventually(lambda n=name, k=kind, c=count: shows(one, c, n, kind=k))  # type: ignore[misc]
    assert value(one, "reconcile_errors_total") == 0
    assert (value(one, "reconcile_duration_seconds_count") or 0) >= 2
    assert (value(one, "journal_records_total", action="restored") or 0) >= len(wanted) - 2
    assert value(one, "journal_lost_records_total") == 0
    assert value(two, "drift_detected_total", kind="route") == 0


def test_drift_that_cannot_be_repaired_ends_with_its_pod(
    cluster: Cluster, podwire_bin: Path
) -> None:
    member = cluster.prepare()
    member.settings["conflist"]["mode"] = "ptp"
    cluster.write()
    member.start()
    plugin = podwire_bin / "podwire"
    pod = member.attach(plugin)
    eventually(lambda: shows(member, 1, "attachments"))
    [route] = member.node.ip("route show proto 112")
    assert member.process is not None
    member.process.send_signal(signal.SIGSTOP)
    member.node.ns.ip_batch(f"route del {route['dst']}\nroute add {route['dst']} dev eth0\n")
    member.process.send_signal(signal.SIGCONT)
    eventually(lambda: shows(member, 1, "attachments_out_of_sync"))
    assert value(member, "drift_repaired_total", kind="link") == 0
    done = member.node.cni("DEL", plugin, member.conf(), netns=pod.path)
    assert done.code == 0
    eventually(lambda: shows(member, 1, "drift_repaired_total", kind="link"))
    assert value(member, "drift_detected_total", kind="link") == 1


def test_a_node_that_is_cut_off_is_unreachable_with_its_share(cluster: Cluster) -> None:
    health = {"interval": 1}
    one, two, three = (cluster.join(health=health) for _ in range(3))
    cluster.settle()
    eventually(lambda: shows(one, 2, "peer_connections", state="established"))
    assert value(one, "peers_unreachable") == 0
    three.stop()
    three.node.run(["ip", "link", "set", "eth0", "down"])
    eventually(lambda: shows(one, 1, "peers_unreachable"))
    for family in ("ipv4", "ipv6"):
        name = "peers_unreachable_addresses_ratio"
        eventually(partial(shows, one, 0.5, name, family=family))
    eventually(lambda: shows(one, 1, "peer_connections_terminated_total"))
    eventually(partial(shows, one, 1, "peer_connections_degraded", reason="underlay-down"))
    assert value(two, "entries_out_of_sync") == 0


def test_a_source_that_breaks_is_reported_and_its_snapshots_are_counted(
    cluster: Cluster, member: Member
) -> None:
    before = value(member, "source_snapshots_total") or 0
    assert before >= 1
    cluster.prepare()
    cluster.write()
    eventually(lambda: shows(member, 2, "nodes"))
    assert (value(member, "source_snapshots_total") or 0) > before
    cluster.file.write_text("nodes: [")
    eventually(lambda: shows(member, 1, "fault", part="source"))
    assert value(member, "nodes") == 2
    assert (value(member, "source_lag_seconds") or 0) >= 0


def test_a_port_in_use_is_reported_and_nothing_else_fails(
    cluster: Cluster, podwire_bin: Path
) -> None:
    member = cluster.prepare()
    cluster.write()
    with member.node.ns.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        member.start()
        eventually(lambda: "listens" in member.fault("metrics") or member.log)
        assert "another process listens there; set metrics.listen" in member.log
        assert any("metrics cannot be served" in line for line in troubles(member))
        member.attach(podwire_bin / "podwire")
        taken.close()
        eventually(lambda: member.fault("metrics") == "" or member.status())
    eventually(partial(shows, member, 1, "cni_calls_total", verb="ADD", code="0"))


def troubles(member: Member) -> list[str]:
    conf = member.folder / "podwired.yaml"
    done = member.node.run([member.podwirectl, "status", "--config", conf], check=False)
    assert done.returncode == 1
    return [line for line in done.stdout.splitlines() if line.startswith("!")]


def test_without_metrics_no_port_is_open_and_nothing_is_counted(cluster: Cluster) -> None:
    member = cluster.join()
    cluster.settle()
    eventually(lambda: shows(member, 0, "dns_queries_total"))
    assert "dns_queries" in ruleset(member)
    member.stop()
    member.start(metrics=False)
    eventually(lambda: "dns_queries" not in ruleset(member) or ruleset(member))
    eventually(member.is_in_sync)
    assert ask_if_up(member, "/metrics")[0] == 0
    assert "cluster4" in ruleset(member)


def ruleset(member: Member) -> str:
    return member.node.run(["nft", "list", "ruleset"]).stdout
