"""docs/metrics.md lists every metric family with its labels, and every alert."""

from __future__ import annotations

import re

import yaml

from daemon.metrics.families import FAMILIES
from daemon.status import PARTS
from tests import ROOT
from tests.unit.docs.pages import codes, read, rows, section

PAGE = read("metrics.md")
SUFFIX = {"counter": "_total"}
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "conf" / "prometheus-alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
# Parts with a metric of their own; pods that were made without the source check are no alarm.
OTHERWISE = {
    "attachments": "PodwireAttachmentsOutOfSync",
    "calls": "PodwireCallProcessDead",
    "metrics": "PodwireDown",
    "ranges": "PodwireAddressesExhausted",
    "routes": "PodwireReconcileErrors",
    "tables": "PodwireTableFull",
    "unchecked": "",
}


def test_every_family_has_a_row() -> None:
    listed = {
        codes(row[0])[0]: (row[1], tuple(codes(row[2])))
        for row in rows(PAGE)
        if row[0].startswith("`podwire_")
    }
    assert listed == {f.name + SUFFIX.get(f.kind, ""): (f.kind, f.labels) for f in FAMILIES}


def test_every_alert_is_listed() -> None:
    listed = [name for row in rows(section(PAGE, "Alerts")) for name in codes(row[0])]
    assert sorted(listed) == sorted(rule["alert"] for rule in RULES)


def test_every_part_that_may_have_a_fault_has_an_alert() -> None:
    matched = re.findall(r'podwire_fault\{part=~?"([^"]+)"', "".join(r["expr"] for r in RULES))
    alerted = {part for parts in matched for part in parts.split("|")}
    assert alerted | OTHERWISE.keys() == PARTS.keys() | {"probes"}
    assert not alerted & OTHERWISE.keys()
    assert {name for name in OTHERWISE.values() if name} <= {rule["alert"] for rule in RULES}
