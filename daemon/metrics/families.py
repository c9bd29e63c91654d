"""The metric families of the daemon, as data: name, type, help, labels.

Names and units follow https://prometheus.io/docs/practices/naming/. No label names a pod or a peer,
so the number of series does not grow with the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """name: of a counter without its _total."""

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


INFO: Final = _gauge(
    "info", "Version and configuration of this node's daemon.",
    "version", "node", "backend", "source",
)  # fmt: skip

CALLS: Final = _counter(
    "cni_calls", "CNI calls, by verb and error code; code 0 is success.", "verb", "code"
)
CALL_SECONDS: Final = _histogram(
    "cni_call_duration_seconds",
    "Time from the arrival of a CNI call to its reply, by verb and result (success, error).",
    "verb", "result",
)  # fmt: skip
CALLS_IN_FLIGHT: Final = _gauge(
    "cni_calls_in_flight", "CNI calls that have arrived and have no reply yet.", "verb"
)
CNI_PROCESSES: Final = _gauge(
    "cni_processes", "Processes of this daemon that serve CNI calls, by state (serving, dead).",
    "state",
)  # fmt: skip

POLICIES: Final = _gauge(
    "policies", "NetworkPolicies that this node knows, by state (enforced, faulty).", "state"
)
POLICY_PODS: Final = _gauge(
    "policy_pods", "Pods of this node, by state (limited by a policy, closed until known).", "state"
)
POLICY_UPDATES: Final = _counter("policy_updates", "Changes of the kernel's policy rules.")
POLICY_CUT: Final = _counter("policy_connections_cut", "Connections cut by changes of policies.")
POLICY_SECONDS: Final = _gauge(
    "policy_update_duration_seconds", "How long the last change took to get into the kernel."
)
POLICY_EVENTS: Final = _counter(
    "policy_source_events", "Changes of policies, namespaces and pods that the API sent."
)
POLICY_RECEIVED: Final = _counter(
    "policy_source_received_bytes", "Bytes that the API sent of policies, namespaces and pods."
)

IN_USE: Final = _gauge(
    "ipam_addresses_in_use", "Addresses allocated to pods of this node.", "network", "family"
)
SIZE: Final = _gauge(
    "ipam_addresses_size", "Addresses in this node's ranges for pods.", "network", "family"
)
RESTING: Final = _gauge(
    "ipam_addresses_resting", "Released addresses that rest before they are allocated again.",
    "network", "family",
)  # fmt: skip
OLDEST: Final = _gauge(
    "ipam_oldest_resting_address_seconds",
    "Time since the release of the address that rests longest, 0 where none rests.",
    "network", "family",
)  # fmt: skip
PENDING: Final = _gauge(
    "ipam_pending_allocations", "Pods that wait for their addresses: ADD calls in flight."
)

CONNECTIONS: Final = _gauge(
    "peer_connections", "Peers by state of the connection to them.", "state"
)
TERMINATED: Final = _counter(
    "peer_connections_terminated", "Peer connections that were established and ended."
)
DEGRADED: Final = _gauge(
    "peer_connections_degraded", "Failed peer connections, by reason.", "reason"
)
UNREACHABLE: Final = _gauge(
    "peers_unreachable", "Peers that own pod addresses and cannot be reached."
)
UNREACHABLE_SHARE: Final = _gauge(
    "peers_unreachable_addresses_ratio",
    "Share of all peers' pod addresses that unreachable peers own.", "family",
)  # fmt: skip
RTT_MEDIAN: Final = _gauge(
    "peer_round_trip_median_seconds", "Median round trip to established peers."
)
RTT_MAX: Final = _gauge("peer_round_trip_max_seconds", "Longest round trip to an established peer.")
PATH_MTU: Final = _gauge("peer_path_mtu_min_bytes", "Smallest path MTU to a peer that answers.")
PROBES_SENT: Final = _counter("probes_sent", "Probes sent to peers.")
PROBES_ANSWERED: Final = _counter("probes_answered", "Probes that a peer answered in time.")
PROBES_SERVED: Final = _counter("probes_served", "Probes of peers that this node answered.")
PROBES_DROPPED: Final = _counter(
    "probes_dropped", "Datagrams at the port of the probes that were invalid or beyond its limits."
)
DROPPED_PACKETS: Final = _counter(
    "dropped_packets",
    "Packets to the ports of VXLAN and probes that were dropped, by reason: not from a peer (vxlan,"
    " probes), beyond the rate of one address (limited), of pods to peers (pods).",
    "reason",
)

PEERS: Final = _gauge("peers", "Peers in the desired state.")
NODES: Final = _gauge("nodes", "Nodes that the cluster source lists, including this one.")
ENTRIES: Final = _gauge("entries", "Desired routes, neighbours and FDB entries for peers.")
OUT_OF_SYNC: Final = _gauge(
    "entries_out_of_sync", "Desired entries that the kernel lacks or has otherwise."
)
ATTACHMENTS: Final = _gauge("attachments", "Attachments of this node's pods in the store.")
ATTACHMENTS_OUT_OF_SYNC: Final = _gauge(
    "attachments_out_of_sync", "Attachments whose link, routes or bridge are not as ADD made them."
)
REFUSED: Final = _gauge("prefixes_refused", "Prefixes of peers that are not routed.")
CONFLICTING: Final = _gauge(
    "prefixes_conflicting", "Prefixes that are routed and overlap a network of this node."
)
READY: Final = _gauge("ready", "1 while this node is ready for pods.")
FAULT: Final = _gauge("fault", "1 while a part of the daemon has a fault.", "part")
MTU: Final = _gauge("pod_mtu_bytes", "MTU of pods' links.")

RECONCILE_SECONDS: Final = _histogram(
    "reconcile_duration_seconds",
    "Duration of the iterations of the routing loop that changed something in the kernel.",
)
ERRORS: Final = _counter("reconcile_errors", "Steps of the routing loop that failed.")
RESTARTS: Final = _counter("routing_restarts", "Restarts of the routing loop after an error.")
ITERATION_AGE: Final = _gauge(
    "routing_iteration_age_seconds", "Time since the last iteration of the routing loop."
)
DRIFT_DETECTED: Final = _counter(
    "drift_detected", "External changes of podwire's objects, by kind of object.", "kind"
)
DRIFT_REPAIRED: Final = _counter(
    "drift_repaired", "External changes that were repaired, by kind of object.", "kind"
)
JOURNAL_RECORDS: Final = _counter("journal_records", "Records written to the journal.", "action")
JOURNAL_LOST: Final = _counter("journal_lost_records", "Records that could not be written.")

TABLE_ENTRIES: Final = _gauge(
    "kernel_table_entries",
    "Entries that count against the bound of a table of the kernel, by table (tracked connections,"
    " IPv4 neighbours, IPv6 neighbours).",
    "table",
)
TABLE_SIZE: Final = _gauge("kernel_table_size", "The bound of a table of the kernel.", "table")

LAG: Final = _gauge("source_lag_seconds", "Time since the last message of the cluster source.")
EVENTS: Final = _counter("source_events", "Changes received from the cluster source.")
RECEIVED: Final = _counter(
    "source_received_bytes", "Bytes received from the cluster source, on the wire."
)
SNAPSHOTS: Final = _counter("source_snapshots", "Snapshots of the cluster built from the changes.")

DNS_QUERIES: Final = _counter(
    "dns_queries", "UDP packets to DNS servers that this node forwarded for pods."
)
DNS_ANSWERS: Final = _counter(
    "dns_answers", "UDP packets from DNS servers that this node forwarded to pods."
)

READ_ERRORS: Final = _counter(
    "metrics_read_errors", "Times that a part of these metrics could not be read.", "part"
)

FAMILIES: Final = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All families, in the order of this module."""
