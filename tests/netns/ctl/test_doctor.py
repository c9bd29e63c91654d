"""`podwirectl doctor` on a node without a daemon and without its configuration."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns.ctl.conftest import Stage

pytestmark = pytest.mark.xdist_group("podwirectl doctor, no configuration")


@pytest.fixture(scope="module")
def full(stage: Stage) -> Stage:
    stage.add("shop/cart", "ptp")
    stage.add("shop/db", "ptp")
    stage.add("shop/web")
    return stage


def doctor(stage: Stage, *words: str, status: int = 1) -> list[dict[str, Any]]:
    """All findings but notices."""
    found = stage.json("doctor", *words, status=status)["findings"]
    return [f for f in found if f["severity"] != "notice"]


def test_on_a_healthy_node_it_is_said_what_was_not_looked_at(full: Stage) -> None:
    out, _err = full.ctl("doctor")
    assert "there is no /etc/podwire/podwired.yaml: pods' links alone were compared" in out
    assert "nothing is wrong" not in out


def test_one_pod_that_cannot_be_repaired_keeps_no_other_from_it(full: Stage) -> None:
    pods = full.pods
    pods["shop/cart"].ip_batch("link set eth0 down\nlink set eth0 name eth9\n")
    pods["shop/db"].ip_batch("route del default\n")
    full.node.ns.ip_batch("link set pw0 down\n")
    found = {f["where"]: f for f in doctor(full)}
    assert {where: f["fixable"] for where, f in found.items()} == {
        "shop/cart": False,
        "shop/db": True,
        "this node": True,
    }
    assert found["shop/cart"]["what"] == "pod shop/cart: link eth0 is missing in the pod"
    assert found["shop/cart"]["do"] == "recreate the pod"
    _out, err = full.ctl("doctor", "--fix", status=1)
    assert "not repaired: link eth0 in shop/cart: could not find link eth0" in err
    assert "repaired link eth0 in shop/db" in err
    assert "repaired link pw0" in err
    assert [f["where"] for f in doctor(full)] == ["shop/cart"]


def test_a_link_that_is_gone_is_a_finding_of_its_pod(full: Stage) -> None:
    full.node.ns.ip_batch(f"link del {full.host('shop/cart')['name']}\n")
    for words in ([], ["shop/cart"]):
        [found] = doctor(full, *words)
        assert (found["where"], found["severity"]) == ("shop/cart", "broken")
        assert "is gone" in found["what"]
        assert (found["do"], found["fixable"]) == ("recreate the pod", False)
    assert doctor(full, "shop/db", status=0) == []


def test_a_damaged_store_is_one_finding_and_the_next_call_rebuilds_it(full: Stage) -> None:
    full.node.run(["sh", "-c", "echo damaged > /var/lib/podwire/podwire.db"])
    [found] = doctor(full)
    assert "is damaged" in found["what"]
    assert found["do"].startswith("let any pod of the node start or stop")
    full.add("shop/new", "ptp")
    assert [f["where"] for f in doctor(full, status=0)] == []
