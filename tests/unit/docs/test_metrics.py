"""docs/metrics.md lists every metric family with its labels, and every alert."""

from __future__ import annotations

import yaml

from daemon.metrics.families import FAMILIES
from tests import ROOT
from tests.unit.docs.pages import codes, read, rows, section

PAGE = read("metrics.md")
SUFFIX = {"counter": "_total"}


def test_every_family_has_a_row() -> None:
    listed = {
        codes(row[0])[0]: (row[1], tuple(codes(row[2])))
        for row in rows(PAGE)
        if row[0].startswith("`podwire_")
    }
    assert listed == {f.name + SUFFIX.get(f.kind, ""): (f.kind, f.labels) for f in FAMILIES}


def test_every_alert_is_listed() -> None:
    rules = yaml.safe_load((ROOT / "conf" / "prometheus-alerts.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    listed = [name for row in rows(section(PAGE, "Alerts")) for name in codes(row[0])]
    assert sorted(listed) == sorted(alerts)
