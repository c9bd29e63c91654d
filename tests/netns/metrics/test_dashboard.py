"""The dashboard and the alerts that an operator copies, against live daemons and a Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.metrics.families import FAMILIES
from tests.netns.metrics.conftest import Cluster, StartPrometheus, eventually
from tests.netns.metrics.programs import ROOT

DASHBOARD = ROOT / "conf/grafana-dashboard.json"
ALERTS = ROOT / "conf/prometheus-alerts.yaml"
GRID = 24
_SUFFIX = {"counter": "_total", "info": "_info", "histogram": "_bucket"}


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Title and expression of every query of every panel, with Grafana's variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "10s").replace("$instance", ".*")
            assert "$" not in text, text
            yield panel["title"], text


def test_every_panel_answers_and_no_alert_fires(
    cluster: Cluster, prometheus: StartPrometheus, podwire_bin: Path
) -> None:
    health = {"interval": 1}
    one = cluster.join(health=health)
    two = cluster.prepare()
    cluster.write()
    two.start(health=health, metrics={"listen": f"[{two.addresses[1]}]:9473"})
    cluster.settle()
    targets = ["127.0.0.1:9473", f"[{two.addresses[1]}]:9473"]
    server = prometheus(one, targets, [ALERTS])
    for member in cluster.members:
        member.attach(podwire_bin / "podwire")
    assert len(server.wait('up{job="podwire"} == 1')) >= 1
    eventually(lambda: len(server.wait("podwire_ready == 1")) == 2)
    for title, query in queries():
        assert server.wait(query), title
    [added] = server.wait('podwire_cni_calls_total{verb="ADD", code="0", instance=~"127.*"} > 0')
    assert added["value"][1] == "1"
    eventually(
        lambda: len(server.wait("sum(podwire_peer_connections{state='established'}) == 2")) == 1
    )
    firing = server.get("/api/v1/alerts")["data"]["alerts"]
    assert [a["labels"]["alertname"] for a in firing if a["state"] == "firing"] == []
    rules = server.get("/api/v1/rules")["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} == {"ok"}


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    board = dashboard()
    assert board["schemaVersion"] >= 38
    assert board["uid"]
    assert "id" not in board  # it is the database's, which imports choose
    known = {f"${{{v['name']}}}" for v in board["templating"]["list"] if v["type"] == "datasource"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(0 <= x < GRID for x, _y in cells)
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] in known
        assert all(target["datasource"]["uid"] in known for target in panel["targets"])


def test_no_panel_is_empty_on_nodes_of_one_address_family() -> None:
    for panel in panels():
        assert any("family=" not in target["expr"] for target in panel["targets"]), panel["title"]


def test_every_family_is_on_the_dashboard_or_in_an_alert() -> None:
    text = DASHBOARD.read_text() + ALERTS.read_text()
    shown = set(re.findall(r"podwire_[a-z_]+", text))
    names = {family.name + _SUFFIX.get(family.kind, "") for family in FAMILIES}
    assert names - shown == {"podwire_peers"}  # podwire_nodes but for this one
    counts = {name.removesuffix("_bucket") + "_count" for name in names}
    assert shown - names - counts == set()
