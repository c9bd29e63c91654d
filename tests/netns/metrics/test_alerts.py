"""The alert rules that an operator copies: each fires when it should, and none otherwise."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.netns.metrics.programs import promtool
from tests.netns.metrics.test_dashboard import ALERTS

N = 'instance="n1"'
CONNECTIONS = 'table="tracked connections"'
MINUTES = 60

Series = Mapping[str, str]
"""Values by name and labels, one a minute, as promtool writes them: start+step x times."""


def steady(value: float) -> str:
    return f"{value}x{MINUTES}"


def rising(step: float) -> str:
    return f"0+{step}x{MINUTES}"


HEALTHY: Series = {
    f'up{{{N}, job="podwire"}}': steady(1),
    f"podwire_ready{{{N}}}": steady(1),
    f"podwire_routing_iteration_age_seconds{{{N}}}": steady(0.4),
    f"podwire_routing_restarts_total{{{N}}}": steady(2),
    f"podwire_entries_out_of_sync{{{N}}}": steady(0),
    f"podwire_attachments_out_of_sync{{{N}}}": steady(0),
    f"podwire_peers_unreachable{{{N}}}": steady(0),
    f'podwire_peers_unreachable_addresses_ratio{{{N}, family="ipv4"}}': steady(0),
    f'podwire_peer_connections_degraded{{{N}, reason="mtu"}}': steady(0),
    f'podwire_ipam_addresses_in_use{{{N}, network="p", family="ipv4"}}': steady(100),
    f'podwire_ipam_addresses_size{{{N}, network="p", family="ipv4"}}': steady(253),
    f'podwire_ipam_addresses_in_use{{{N}, network="old", family="ipv4"}}': steady(1),
    f'podwire_ipam_addresses_size{{{N}, network="old", family="ipv4"}}': steady(0),
    f'podwire_cni_calls_total{{{N}, verb="ADD", code="100"}}': steady(0),
    f"podwire_ipam_pending_allocations{{{N}}}": "0+30x5 0x55",
    f'podwire_cni_call_duration_seconds_count{{{N}, verb="ADD", result="error"}}': rising(1),
    f'podwire_cni_call_duration_seconds_count{{{N}, verb="ADD", result="success"}}': rising(60),
    f'podwire_cni_call_duration_seconds_bucket{{{N}, verb="ADD", result="success", le="0.01"}}':
        rising(60),
    f'podwire_cni_call_duration_seconds_bucket{{{N}, verb="ADD", result="success", le="+Inf"}}':
        rising(60),
    f'podwire_fault{{{N}, part="source"}}': steady(0),
    f'podwire_fault{{{N}, part="journal"}}': steady(0),
    f'podwire_fault{{{N}, part="probes"}}': steady(0),
    f'podwire_fault{{{N}, part="paths"}}': steady(0),
    f"podwire_kernel_table_entries{{{N}, {CONNECTIONS}}}": steady(100),
    f"podwire_kernel_table_size{{{N}, {CONNECTIONS}}}": steady(256),
    f"podwire_source_lag_seconds{{{N}}}": steady(40),
    f"podwire_prefixes_refused{{{N}}}": steady(0),
    f'podwire_drift_detected_total{{{N}, kind="route"}}': rising(1),
    f'podwire_drift_repaired_total{{{N}, kind="route"}}': rising(1),
    f"podwire_reconcile_errors_total{{{N}}}": steady(5),
    f"podwire_journal_lost_records_total{{{N}}}": steady(0),
    f"podwire_dns_queries_total{{{N}}}": rising(6000),
    f"podwire_dns_answers_total{{{N}}}": rising(5900),
}  # fmt: skip

BUCKET = f'podwire_cni_call_duration_seconds_bucket{{{N}, verb="ADD", result="success", le='
FIRES: Mapping[str, Series] = {
    "PodwireDown": {f'up{{{N}, job="podwire"}}': steady(0)},
    "PodwireNodeNotReady": {f"podwire_ready{{{N}}}": steady(0)},
    "PodwireRoutingStuck": {f"podwire_routing_iteration_age_seconds{{{N}}}": rising(60)},
    "PodwireRoutingRestarts": {f"podwire_routing_restarts_total{{{N}}}": rising(3)},
    "PodwireEntriesOutOfSync": {f"podwire_entries_out_of_sync{{{N}}}": steady(3)},
    "PodwireAttachmentsOutOfSync": {f"podwire_attachments_out_of_sync{{{N}}}": steady(1)},
    "PodwirePeersUnreachable": {f"podwire_peers_unreachable{{{N}}}": steady(1)},
    "PodwirePeersUnreachableMany": {
        f'podwire_peers_unreachable_addresses_ratio{{{N}, family="ipv4"}}': steady(0.3),
        f"podwire_peers_unreachable{{{N}}}": steady(2),
    },
    "PodwirePathMtu": {f'podwire_peer_connections_degraded{{{N}, reason="mtu"}}': steady(1)},
    "PodwirePolicyFaulty": {f'podwire_policies{{{N}, state="faulty"}}': steady(1)},
    "PodwirePodsClosed": {f'podwire_policy_pods{{{N}, state="closed"}}': steady(1)},
    "PodwireAddressesRunningOut": {
        f'podwire_ipam_addresses_in_use{{{N}, network="p", family="ipv4"}}': steady(240)
    },
    "PodwireAddressesExhausted": {
        f'podwire_cni_calls_total{{{N}, verb="ADD", code="100"}}': rising(1)
    },
    "PodwirePendingAllocations": {f"podwire_ipam_pending_allocations{{{N}}}": steady(30)},
    "PodwireCallProcessDead": {f'podwire_cni_processes{{{N}, state="dead"}}': steady(1)},
    "PodwireAddFailures": {
        f'podwire_cni_call_duration_seconds_count{{{N}, verb="ADD", result="error"}}': rising(30)
    },
    "PodwireAddSlow": {BUCKET + '"0.01"}': rising(1), BUCKET + '"10"}': rising(60)},
    "PodwireSourceLost": {f'podwire_fault{{{N}, part="source"}}': steady(1)},
    "PodwireSourceSilent": {f"podwire_source_lag_seconds{{{N}}}": "0+60x60"},
    "PodwireFault": {f'podwire_fault{{{N}, part="journal"}}': steady(1)},
    "PodwirePacketsLost": {f'podwire_fault{{{N}, part="paths"}}': steady(1)},
    "PodwireTableFull": {f"podwire_kernel_table_entries{{{N}, {CONNECTIONS}}}": steady(250)},
    "PodwireProbesDegraded": {f'podwire_fault{{{N}, part="probes"}}': steady(1)},
    "PodwirePrefixesRefused": {f"podwire_prefixes_refused{{{N}}}": steady(1)},
    "PodwireFlapping": {
        f'podwire_drift_{what}_total{{{N}, kind="route"}}': rising(30)
        for what in ("detected", "repaired")
    },
    "PodwireDriftNotRepaired": {f'podwire_drift_repaired_total{{{N}, kind="route"}}': steady(0)},
    "PodwireReconcileErrors": {f"podwire_reconcile_errors_total{{{N}}}": rising(1)},
    "PodwireJournalIncomplete": {f"podwire_journal_lost_records_total{{{N}}}": rising(1)},
    "PodwireDnsUnanswered": {f"podwire_dns_answers_total{{{N}}}": rising(3000)},
    "PodwireDnsLimit": {
        f"podwire_dns_{what}_total{{{N}}}": rising(60_000) for what in ("queries", "answers")
    },
}


BESIDE = {"PodwirePeersUnreachableMany": "PodwirePeersUnreachable"}
"""Alerts that never fire alone, and the lesser one."""


def check(folder: Path, series: Series, fires: set[str]) -> tuple[int, str]:
    """Whether exactly these alerts fire an hour later, as promtool says."""
    test = {
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{MINUTES - 1}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(fires)
                ],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": [test]}))
    return promtool("test", "rules", file)


def names() -> set[str]:
    return set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))


def test_the_rules_are_sound() -> None:
    status, text = promtool("check", "rules", ALERTS)
    assert status == 0, text
    assert f"{len(names())} rules found" in text


def test_each_alert_has_a_test() -> None:
    assert names() == set(FIRES)


def test_nothing_fires_on_a_healthy_node(tmp_path: Path) -> None:
    status, text = check(tmp_path, HEALTHY, set())
    assert status == 0, text


def test_nothing_fires_on_a_node_whose_first_pods_all_wait(tmp_path: Path) -> None:
    late = f"_x{MINUTES - 2} 30 30"
    first = {
        f"podwire_ipam_pending_allocations{{{N}}}": late,
        f'podwire_policy_pods{{{N}, state="closed"}}': late,
    }
    status, text = check(tmp_path, {**HEALTHY, **first}, set())
    assert status == 0, text


@pytest.mark.parametrize("name", FIRES)
def test_an_alert_fires_alone(tmp_path: Path, name: str) -> None:
    fires = {name, BESIDE.get(name, name)}
    status, text = check(tmp_path, {**HEALTHY, **FIRES[name]}, fires)
    assert status == 0, text


def test_one_node_that_is_down_is_not_many_in_a_small_cluster(tmp_path: Path) -> None:
    down = {
        f'podwire_peers_unreachable_addresses_ratio{{{N}, family="ipv4"}}': steady(0.5),
        f"podwire_peers_unreachable{{{N}}}": steady(1),
    }
    status, text = check(tmp_path, {**HEALTHY, **down}, {"PodwirePeersUnreachable"})
    assert status == 0, text


def test_a_check_can_fail(tmp_path: Path) -> None:
    assert check(tmp_path, HEALTHY, {"PodwireDown"})[0] != 0
