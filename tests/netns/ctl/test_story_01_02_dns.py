"""Stories 01 and 02: a lookup of an outside name costs ten queries, and limits of DNS show nowhere.

`podwirectl dns` does the lookups of the pod's resolver, and says what they cost and where they end.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ctl.dns.codec import Query, encode
from tests.netns.ctl.conftest import Stage
from tests.netns.ctl.dns_server import DnsServer
from tests.netns.routing.conftest import eventually

pytestmark = pytest.mark.xdist_group("podwirectl dns")

SEARCH = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]
NAMES = {"www.example.com": "203.0.113.7", "db.shop.svc.cluster.local": "10.96.3.4"}
WAIT = """
import os, sys, time
os.chroot(sys.argv[1])
os.chdir("/")
print(flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def shop(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A pod with a process, whose root has the resolv.conf that kubelet makes."""
    server = stage.underlay.gateway(4)
    pod = stage.add("shop/cart", "ptp", ipMasq=True)
    root = tmp_path_factory.mktemp("root")
    (root / "etc").mkdir()
    text = f"search {' '.join(SEARCH)}\nnameserver {server}\noptions ndots:5 timeout:5\n"
    (root / "etc" / "resolv.conf").write_text(text)
    process = subprocess.Popen(
        ["nsenter", f"--net={pod.path}", sys.executable, "-c", WAIT, str(root)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield stage
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.fixture
def server(shop: Stage) -> Iterator[DnsServer]:
    """The DNS server that the pod's resolver has."""
    with closing(DnsServer(shop.underlay.ns, shop.underlay.gateway(4), NAMES)) as running:
        yield running


def test_story_01_an_outside_name_costs_ten_queries(shop: Stage, server: DnsServer) -> None:
    found = shop.json("dns", "shop/cart", "www.example.com")
    assert len(server.asked) == len(found["queries"]) == 10
    assert (found["inVain"], found["lost"], found["addresses"]) == (8, 0, ["203.0.113.7"])
    assert (found["ndots"], found["search"]) == (5, SEARCH)
    assert found["answeredAs"] == "www.example.com"
    assert [q["name"] for q in found["queries"][::2]] == [
        *(f"www.example.com.{domain}" for domain in SEARCH),
        "www.example.com",
    ]
    assert all(0 < query["seconds"] < 5 for query in found["queries"])
    (advice,) = found["findings"]
    assert 'name: ndots, value: "2"' in advice
    assert "www.example.com. with the dot" in advice
    # What it advises helps: two queries are left.
    for words in (["www.example.com."], ["www.example.com", "--ndots", "2"]):
        better = shop.json("dns", "shop/cart", *words)
        assert (len(better["queries"]), better["inVain"], better["findings"]) == (2, 0, [])


def test_a_name_of_the_cluster_is_found_at_once(shop: Stage, server: DnsServer) -> None:
    found = shop.json("dns", shop.address("shop/cart"), "db")
    assert (len(server.asked), found["answeredAs"]) == (2, "db.shop.svc.cluster.local")
    assert (found["inVain"], found["findings"]) == (0, [])
    table, _ = shop.ctl("dns", "shop/cart", "db")
    assert "10.96.3.4" in table
    assert "2: 0 in vain, 0 lost" in table


def test_a_name_that_is_nowhere(shop: Stage, server: DnsServer) -> None:
    found = shop.json("dns", "shop/cart", "nowhere", status=1)
    assert "has no address under any" in found["findings"][0]
    assert {query["result"] for query in found["queries"]} == {"NXDOMAIN"}
    assert len(server.asked) == 10


def test_story_02_a_limit_of_queries_shows(shop: Stage, server: DnsServer) -> None:
    assert shop.json("dns", "shop/cart", "db", "--burst", "200")["burst"]["answered"] >= 196
    server.budget = 2 + 100
    found = shop.json("dns", "shop/cart", "db", "--burst", "300", status=1)
    assert found["burst"] == {"sent": 300, "answered": 100}
    assert "something limits DNS" in found["findings"][-1]


def test_story_02_what_the_pod_itself_loses_shows(shop: Stage, server: DnsServer) -> None:
    server.budget = 11
    pod = shop.pods["shop/cart"]
    words = ["--watch", "10", "-o", "json"]
    argv = [*shop.node.enter, str(shop.bin_dir / "podwirectl"), "dns"]
    with (
        subprocess.Popen([*argv, "shop/cart", *words], stdout=subprocess.PIPE) as watching,
        subprocess.Popen([*argv, *words], stdout=subprocess.PIPE) as watching_all,
        pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.connect((server.address, 53))
        eventually(lambda: is_watched(watching.pid, 1 + len(shop.pods)))
        for number in range(10):
            sock.send(encode(Query(number, f"x{number}.nowhere", "A")))
            sock.recv(512)
        for _ in range(2):
            sock.send(encode(Query(77, "DB.shop.svc.cluster.local", "A")))
            sock.recv(512) if server.budget else time.sleep(0.1)
        sock.send(b"\xff" * 20)
        found = json.loads(watching.stdout.read()) if watching.stdout else {}
        every = json.loads(watching_all.stdout.read()) if watching_all.stdout else {}
    assert watching.returncode == watching_all.returncode == 1
    sums = {"queries": 12, "answers": 11, "inVain": 10, "lost": 1, "repeated": 0}
    assert {"pod": "shop/cart", **sums, "peakPerSecond": found["peakPerSecond"]} in every["pods"]
    assert every["findings"][0] == f"shop/cart: {found['findings'][0]}"
    assert (found["queries"], found["answers"], found["lost"]) == (12, 11, 1)
    assert found["inVain"] == 10
    (db,) = (name for name in found["names"] if name["name"] == "db.shop.svc.cluster.local")
    assert (db["queries"], db["lost"], db["codes"]) == (2, 1, {"NOERROR": 1})
    assert "1 of 12 queries had no answer" in found["findings"][0]
    assert "names that do not exist" in found["findings"][1]


def is_watched(process: int, sockets: int) -> object:
    """Whether there are as many packet sockets in the namespace of the process."""
    table = Path(f"/proc/{process}/net/packet").read_text().splitlines()[1:]
    return len(table) >= sockets or table


def test_a_server_that_is_mute_or_gone(shop: Stage) -> None:
    fast = ("--attempts", "1", "--timeout", "0.3")
    found = shop.json("dns", "shop/cart", "db", *fast, status=1)
    assert {query["result"] for query in found["queries"]} == {"refused"}
    assert "no DNS server listens there" in found["findings"][0]
    with closing(DnsServer(shop.underlay.ns, shop.underlay.gateway(4), NAMES)) as mute:
        mute.budget = 0
        found = shop.json("dns", "shop/cart", "db", *fast, status=1)
        assert found["lost"] == len(found["queries"]) == 2
        eventually(lambda: len(mute.asked) == 2 or mute.asked)
    assert "no query of 2 had an answer" in found["findings"][0]
    assert f"`podwirectl trace shop/cart {mute.address}:53/udp`" in found["findings"][0]


def test_a_path_that_is_another_pods_by_now(shop: Stage, server: DnsServer) -> None:
    path = shop.pods["shop/cart"].path
    other = shop.add("test/other", "ptp", ipMasq=True).path
    shop.node.run(["mount", "--bind", other, path])  # on the node alone: its mounts are its own
    try:
        # A process of the pod leads to its namespace.
        assert shop.json("dns", "shop/cart", "db")["addresses"] == ["10.96.3.4"]
        _, err = shop.ctl("pods", path, "-o", "json")
        assert err == ""
    finally:
        shop.node.run(["umount", path])


def test_options_stand_in_for_the_file(shop: Stage, server: DnsServer) -> None:
    shop.add("test/bare", "ptp", ipMasq=True)
    _, err = shop.ctl("dns", "test/bare", "db", status=1)
    assert "give --server" in err
    words = ("--server", server.address, "--search", SEARCH[0], "--ndots", "5")
    assert shop.json("dns", "test/bare", "db", *words)["addresses"] == ["10.96.3.4"]
    assert shop.ctl("dns", "test/bare", "a..b", *words, status=1)[1].startswith(
        "podwirectl: 'a..b'"
    )
