"""All that the daemon shows, as data: name, type, meaning, labels.

Names and units are Prometheus' (https://prometheus.io/docs/practices/naming/). No label names a pod
or a peer: how many series there are does not grow with the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Family:
    """name: of a counter without its _total, of an info without its _info."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(f"podwire_{name}", "counter", text, labels)


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"podwire_{name}", "gauge", text, labels)


def _histogram(name: str, text: str, *labels: str) -> Family:
    return Family(f"podwire_{name}", "histogram", text, labels)


INFO: Final = Family(
    "podwire", "info", "Version and configuration of this node's daemon.",
    ("version", "node", "backend", "source"),
)  # fmt: skip

CALLS: Final = _counter(
    "cni_calls", "CNI calls, by verb and error code; code 0 is success.", "verb", "code"
)
CALL_SECONDS: Final = _histogram(
    "cni_call_duration_seconds",
    "Time from a CNI call's arrival to its answer, by verb and result (success, error).",
    "verb", "result",
)  # fmt: skip
CALLS_UNDER_WAY: Final = _gauge(
    "cni_calls_under_way", "CNI calls that have arrived and are not answered yet.", "verb"
)
CALL_PROCESSES: Final = _gauge(
    "call_processes", "Processes of this daemon for CNI calls: serving, dead.", "state"
)

HELD: Final = _gauge(
    "ipam_addresses_in_use", "Addresses that pods of this node have.", "network", "family"
)
SPACE: Final = _gauge(
    "ipam_addresses_size", "Addresses that this node's pods can have in all.", "network", "family"
)
RESTING: Final = _gauge(
    "ipam_addresses_resting", "Freed addresses that wait before they are given again.",
    "network", "family",
)  # fmt: skip
OLDEST: Final = _gauge(
    "ipam_oldest_resting_address_seconds",
    "Age of the address that was freed longest ago and not given again, 0 where there is none.",
    "network", "family",
)  # fmt: skip
PENDING: Final = _gauge(
    "ipam_pending_allocations", "Pods that wait for their addresses: ADD calls under way."
)

CONNECTIONS: Final = _gauge(
    "peer_connections", "Other nodes' daemons, by the state of the way to them.", "state"
)
TERMINATED: Final = _counter(
    "peer_connections_terminated", "Ways to other nodes that were established and ended."
)
TROUBLED: Final = _gauge(
    "peer_connections_troubled", "Other nodes that failed to be reached as they should, by reason.",
    "reason",
)  # fmt: skip
UNREACHABLE: Final = _gauge(
    "peers_unreachable", "Other nodes that own addresses of pods and cannot be reached."
)
UNREACHABLE_SHARE: Final = _gauge(
    "peers_unreachable_addresses_ratio",
    "Share of all other nodes' pod addresses that unreachable ones own.", "family",
)  # fmt: skip
RTT_MEDIAN: Final = _gauge(
    "peer_round_trip_median_seconds", "Round trip to the median of the nodes that are reached."
)
RTT_MAX: Final = _gauge(
    "peer_round_trip_max_seconds", "Round trip to the slowest of the nodes that are reached."
)
PATH_MTU: Final = _gauge(
    "peer_path_mtu_min_bytes", "The smallest path MTU to any node that is reached."
)
PROBES_SENT: Final = _counter("probes_sent", "Probes sent to other nodes.")
PROBES_ANSWERED: Final = _counter("probes_answered", "Those that were answered in time.")
PROBES_SERVED: Final = _counter("probes_served", "Probes of other nodes that were answered.")
PROBES_DROPPED: Final = _counter(
    "probes_dropped", "Datagrams that came to the port of the probes and counted for nothing.",
    "cause",
)  # fmt: skip

PEERS: Final = _gauge("peers", "Other nodes that the plan leads to.")
NODES: Final = _gauge("nodes", "Nodes that the source of the cluster knows, with this one.")
WANTED: Final = _gauge(
    "entries", "Routes, neighbours and FDB entries that there should be for other nodes."
)
MISSING: Final = _gauge("entries_out_of_sync", "Those of them that the kernel does not have so.")
REFUSED: Final = _gauge("prefixes_refused", "Prefixes of other nodes that are not routed.")
TOLERATED: Final = _gauge(
    "prefixes_shadowed", "Prefixes that are routed, but something of this node takes packets from."
)
READY: Final = _gauge("ready", "1 while this node is ready for pods.")
FAULT: Final = _gauge("fault", "1 while something is wrong, by part.", "part")
MTU: Final = _gauge("pod_mtu_bytes", "MTU of pods' links.")

TURN_SECONDS: Final = _histogram(
    "reconcile_duration_seconds",
    "Time of those turns of the routing loop that changed something in the kernel.",
)
ERRORS: Final = _counter("reconcile_errors", "Steps of the routing loop that failed.")
RESTARTS: Final = _counter("routing_restarts", "Times that the routing loop began anew.")
IDLE: Final = _gauge("routing_last_turn_seconds", "Time since the routing loop turned last.")
FOUND: Final = _counter(
    "drift_found", "Things of podwire's that others changed or removed, by kind.", "kind"
)
HEALED: Final = _counter("drift_healed", "Those that were put right, by kind.", "kind")
JOURNALED: Final = _counter("journal_records", "Records written to the journal.", "action")
UNJOURNALED: Final = _counter("journal_lost_records", "Records that could not be written.")

LAG: Final = _gauge("source_lag_seconds", "Time since the source of the cluster was heard last.")
EVENTS: Final = _counter("source_events", "Changes that the source of the cluster told.")
RECEIVED: Final = _counter(
    "source_received_bytes", "Bytes received from the source of the cluster, on the wire."
)
SNAPSHOTS: Final = _counter("source_snapshots", "States of the cluster that were made of them.")

DNS_QUERIES: Final = _counter(
    "dns_queries", "UDP packets to DNS servers that this node passed on between pods and others."
)
DNS_ANSWERS: Final = _counter("dns_answers", "UDP packets from DNS servers, as for queries.")

UNREAD: Final = _counter(
    "metrics_unread", "Times that a part of these metrics could not be read.", "part"
)

FAMILIES: Final = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All of them, in the order of this page."""
