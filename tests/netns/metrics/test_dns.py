"""DNS of pods, counted by the kernel: real queries through a node, answered or not."""

import contextlib
import json
import socket
from pathlib import Path

import pytest

from tests.netns.metrics.conftest import Cluster, Member, eventually, shows, value
from tests.pytest_netns import Namespace

SERVICE = "10.96.0.10"


@pytest.fixture
def member(cluster: Cluster) -> Member:
    """A node that counts."""
    made = cluster.join()
    cluster.settle()
    eventually(lambda: shows(made, 0, "dns_queries_total"))
    return made


def address_of(pod: Namespace, version: int) -> str:
    texts = (address.partition("/")[0] for address in pod.addresses("eth0"))
    return next(text for text in texts if (":" in text) == (version == 6))


def ask(pod: Namespace, address: str, port: int = 53) -> None:
    """One query, with nobody waiting for the answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pod.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(b"query", (address, port))


def add_chain(member: Member, hook: str, rule: str) -> None:
    """A chain of somebody else's."""
    name = f"ip {hook.split()[3]}"
    script = f"add table {name}\nadd chain {name} a {{ {hook}; }}\nadd rule {name} a {rule}\n"
    member.node.run(["nft", "-f", "-"], stdin=script)


@pytest.mark.parametrize("version", [4, 6])
def test_queries_and_answers_between_pods(member: Member, podwire_bin: Path, version: int) -> None:
    client, server = (member.attach(podwire_bin / "podwire") for _ in range(2))
    to = address_of(server, version)
    dns, other = server.echo("udp", to, 53), server.echo("udp", to, 54)
    for _ in range(3):
        client.exchange(dns)
        client.exchange(other)
    tcp = server.echo("tcp", to, 53)
    client.exchange(tcp)
    assert value(member, "dns_queries_total") == 3
    assert value(member, "dns_answers_total") == 3


def test_a_service_whose_server_listens_elsewhere_counts_and_one_that_is_silent_shows(
    member: Member, podwire_bin: Path
) -> None:
    client, server = (member.attach(podwire_bin / "podwire") for _ in range(2))
    to = address_of(server, 4)
    dns = server.echo("udp", to, 5353)
    rule = f"ip daddr {SERVICE} udp dport 53 dnat to {to}:5353"
    add_chain(member, "type nat hook prerouting priority dstnat", rule)
    client.exchange(dns, to=(SERVICE, 53))
    client.exchange(dns)  # at 5353, which is no DNS that anybody would know of
    assert (value(member, "dns_queries_total"), value(member, "dns_answers_total")) == (1, 1)
    ask(client, to)  # nobody listens there
    eventually(lambda: shows(member, 2, "dns_queries_total"))
    assert value(member, "dns_answers_total") == 1
    add_chain(member, "type filter hook forward priority filter", "udp dport 53 drop")
    ask(client, to)
    eventually(lambda: shows(member, 3, "dns_queries_total"))
    assert value(member, "dns_answers_total") == 1


def test_counting_restarts_where_others_removed_it(member: Member) -> None:
    def has_chain() -> object:
        value(member, "dns_queries_total")
        done = member.node.run(
            ["nft", "-j", "list", "chain", "inet", "podwire", "dns"], check=False
        )
        return '"rule"' in done.stdout or done.stdout + done.stderr

    assert has_chain() is True
    for words in (
        "flush chain inet podwire dns",
        "delete chain inet podwire dns",
        "delete table inet podwire",
    ):
        member.node.run(["nft", *words.split()])
        eventually(has_chain)
    eventually(member.is_in_sync)
    removed = json.dumps(member.history())
    assert "dns" not in removed  # nobody is told of what harms nobody


def test_cleanup_leaves_no_counter_where_pods_keep_the_table(
    member: Member, podwire_bin: Path
) -> None:
    member.attach(podwire_bin / "podwire")
    member.stop()
    conf = member.folder / "podwired.yaml"
    done = member.node.run([member.podwirectl, "cleanup", "--yes", "--config", conf])
    assert "removed nftables chain dns" in done.stdout
    tables = member.node.run(["nft", "list", "ruleset"]).stdout
    assert "hairpin4" in tables
    assert "dns" not in tables
