"""How the figures of policies are called."""

from __future__ import annotations

POLICY = "policy"
EVENTS = "events that a node receives in an hour; reference: a watch of all pods"
BYTES = "bytes that a node receives in an hour; reference: a watch of all pods"
LABEL = "a pod's label: from before it is written to the kernel"
WRITTEN = "a policy: from before it is written to the kernel"
CHURN_RATE = "pods that go and come a second"
CHURNED = "CPU of podwired meanwhile"
SELECTED, FREE = "ADD of a pod that policies select", "ADD of a pod that no policy selects"
UNLIMITED, LIMITED, ALL = "no policy", "1,000 policies", "1,000 policies, 10,000 peers"


def memory(what: str) -> str:
    """How the daemon's memory is called, by what it knows."""
    return f"PSS of podwired with {what}"


def in_cluster(api: str) -> str:
    """The case of a large cluster. api: which API server it has."""
    return f"5,000 nodes, 250,000 pods, 1,000 policies; {api}"
