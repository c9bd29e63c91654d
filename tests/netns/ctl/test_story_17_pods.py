"""Story 17: `ip netns` shows nothing, and which of the node's links is which pod?

`podwirectl pods` shows it from the node's own state, no daemon running, in both directions.
"""

import re

import pytest

from tests.netns.ctl.conftest import Stage, container_of

pytestmark = pytest.mark.xdist_group("podwirectl pods")


@pytest.fixture(scope="module")
def full(stage: Stage) -> Stage:
    """Pods of two modes, one with two interfaces, two of one name, and one of another plugin."""
    stage.add("shop/cart")
    stage.add("shop/cart", ifname="net1", name="more", bridge="pw0")
    stage.add("shop/db", "ptp")
    stage.add("test/db")
    stage.node.ns.ip_batch("link add cali7 type veth peer name cali7p\nlink set cali7 up\n")
    stage.note("old/web", "cali7")
    return stage


def test_every_pod_is_listed_with_both_ends(full: Stage) -> None:
    pods = full.json("pods")
    assert [(p["pod"], p["ifname"]) for p in pods] == [
        ("old/web", "eth0"),
        ("shop/cart", "eth0"),
        ("shop/cart", "net1"),
        ("shop/db", "eth0"),
        ("test/db", "eth0"),
    ]
    cart = pods[1]
    link = full.pods["shop/cart"].link("eth0")
    assert link is not None
    assert cart["mac"] == link["address"]
    assert cart["hostLink"] == full.host("shop/cart")["name"]
    assert cart["containerID"] == container_of("shop/cart")
    assert cart["netns"] == str(full.pods["shop/cart"].path)
    assert cart["netnsInode"] == full.pods["shop/cart"].path.stat().st_ino
    assert cart["addresses"][0].partition("/")[0] == full.address("shop/cart")
    assert [p["bridge"] for p in pods] == [None, "pw0", "pw0", None, "pw0"]
    assert [p["problems"] for p in pods[1:]] == [[]] * 4


def test_traffic_is_the_pods(full: Stage) -> None:
    before = full.json("pods", "shop/db")[0]["traffic"]
    gateway = full.results["shop/db eth0"]["ips"][0]["gateway"]
    full.pods["shop/db"].run(["ping", "-c", "3", "-i", "0.01", "-s", "1000", gateway])
    after = full.json("pods", "shop/db")[0]["traffic"]
    for way in ("sent", "received"):
        assert after[f"{way}Packets"] - before[f"{way}Packets"] >= 3
        assert after[f"{way}Bytes"] - before[f"{way}Bytes"] >= 3 * 1028


def test_one_that_another_plugin_wired_is_marked(full: Stage) -> None:
    (web,) = full.json("pods", "old/web")
    assert web["wiredBy"] == "calico"
    assert web["addresses"] == ["10.9.9.9/32"]
    assert web["traffic"] is not None
    assert "recreate the pod" in web["problems"][0]
    assert re.search(r"old/web .* by calico", full.ctl("pods")[0])


def names(full: Stage) -> dict[str, str]:
    """Whatever a person may know of the pod shop/cart or its first interface."""
    link, host = full.pods["shop/cart"].link("eth0"), full.host("shop/cart")
    assert link is not None
    path = full.pods["shop/cart"].path
    return {
        "pod": "shop/cart",
        "name": "cart",
        "container": container_of("shop/cart"),
        "beginning": container_of("shop/cart")[:9],
        "address": full.address("shop/cart"),
        "address, written otherwise": "fd00:77:0::" + full.json("pods", "cart")[0]["addresses"][1]
        .partition("/")[0].rpartition(":")[2],
        "MAC": str(link["address"]).upper(),
        "host's MAC": str(host["mac"]),
        "link": str(host["name"]),
        "path": str(path),
        "namespace": path.name,
        "inode": f"net:[{path.stat().st_ino}]",
    }  # fmt: skip


def test_the_reverse_from_whatever_is_known(full: Stage) -> None:
    for what, text in names(full).items():
        found = full.json("pods", text)
        assert {p["pod"] for p in found} == {"shop/cart"}, what
        assert "eth0" in {p["ifname"] for p in found}, what
    whole, _ = full.ctl("pods", full.host("shop/cart")["name"])
    assert re.search(r"^pod +shop/cart$", whole, re.MULTILINE)
    assert re.search(rf"^namespace +{full.pods['shop/cart'].path} \(net:\[\d+\]\)$", whole, re.M)


def test_all_that_a_text_names_are_shown(full: Stage) -> None:
    assert {p["pod"] for p in full.json("pods", "db")} == {"shop/db", "test/db"}
    assert len(full.json("pods", "shop-")) == 3
    assert {p["pod"] for p in full.json("pods", "10.9.9.9")} == {"old/web"}


def test_a_command_for_one_pod_wants_one(full: Stage) -> None:
    _, err = full.ctl("dns", "db", status=1)
    assert "'db' is ambiguous: 2 pods have it (shop/db (" in err
    assert "is no pod" in full.ctl("dns", "nothing", status=1)[1]


def test_of_a_pod_that_was_replaced_the_present_one_is_meant(full: Stage) -> None:
    full.add("test/twin", container="f" * 40)
    full.node.ns.ip_batch(f"link delete {full.host('test/twin')['name']}\n")
    full.add("test/twin", container="e" * 40)
    assert len(full.json("pods", "test/twin")) == 2
    _, err = full.ctl("dns", "twin", status=1)
    assert "/etc/resolv.conf of test/twin cannot be read" in err
    full.remove("test/twin", "f" * 40)
    full.remove("test/twin", "e" * 40)


def test_what_nothing_is_called(full: Stage) -> None:
    for text in ("shop/carx", "sho", "10.77.0.250", "/run/netns/none", "../etc", "", "\x1b[31m"):
        if text:
            out, err = full.ctl("pods", text, status=1)
            assert out == ""
            assert "is no pod" in err
            assert "\x1b" not in err
    assert "did you mean shop/cart" in full.ctl("pods", "shop/carx", status=1)[1]


def test_links_are_enough(full: Stage) -> None:
    # The store is damaged: the aliases of the links have the most of it.
    database = "/var/lib/podwire/podwire.db"
    full.node.run(["mv", database, f"{database}.kept"])
    full.node.run(["tee", database], stdin="garbage" * 1000)
    try:
        out, err = full.ctl("pods", "-o", "json", status=1)
    finally:
        full.node.run(["mv", f"{database}.kept", database])
    assert "podwire.db" in err
    assert '"shop/cart"' in out
    assert full.address("shop/cart") in out


def test_a_link_that_is_gone_is_a_problem(full: Stage) -> None:
    full.add("test/gone")
    full.node.ns.ip_batch(f"link delete {full.host('test/gone')['name']}\n")
    full.node.ns.ip_batch(f"link set {full.host('test/db')['name']} down\n")
    (gone,), (down,) = full.json("pods", "test/gone"), full.json("pods", "test/db")
    assert "recreate the pod" in gone["problems"][0]
    assert gone["traffic"] is None
    assert "is down" in down["problems"][0]
    assert "!  test/gone eth0: " in full.ctl("pods")[0]
