"""Objects of many kinds as facts, and facts as objects: what files hold, the daemon's own too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from daemon.files import read_regular
from daemon.policy.fields import UnusableField, mapping_of, sequence_of
from daemon.policy.model import (
    MONITOR,
    Facts,
    NamespaceFacts,
    PodFacts,
    Policy,
    parse_namespace_facts,
    parse_pod_facts,
    parse_policy,
)
from kernel.nftables.policy_rules import PROTOCOLS

FILE_MAX = 64 << 20  # bytes
_LISTS = ("List", "NetworkPolicyList", "PodList", "NamespaceList")


def facts_of(things: Iterable[Any]) -> Facts:
    """What objects of all kinds say. Raises UnusableField for what is no object that is known."""
    policies: dict[tuple[str, str], Policy] = {}
    namespaces: dict[str, NamespaceFacts] = {}
    pods: dict[tuple[str, str], PodFacts] = {}
    for thing in _each(things):
        match mapping_of(thing, "object").get("kind"):
            case "NetworkPolicy":
                policy = parse_policy(thing)
                policies[policy.key] = policy
            case "Namespace":
                namespace = parse_namespace_facts(thing)
                namespaces[namespace.name] = namespace
            case "Pod":
                if pod := parse_pod_facts(thing):
                    pods[pod.key] = pod
            case kind:
                raise UnusableField("kind", kind, "must be NetworkPolicy, Namespace or Pod")
    return Facts(policies, namespaces, pods)


def _each(things: Iterable[Any]) -> Iterator[Any]:
    for thing in things:
        if mapping_of(thing, "object").get("kind") in _LISTS:
            yield from sequence_of(thing.get("items"), "items")
        elif thing is not None:
            yield thing


def render_facts(facts: Facts) -> bytes:
    """A file of these facts, an object in each line."""
    # One after the other: all of a large cluster would be in memory together.
    things = chain(
        map(_render_namespace, facts.namespaces.values()),
        map(_render_policy, facts.policies.values()),
        map(_render_pod, facts.pods.values()),
    )
    lines = ",\n".join(json.dumps(thing) for thing in things)
    return f'{{"apiVersion": "v1", "kind": "List", "items": [\n{lines}\n]}}\n'.encode()


def read_facts(path: Path) -> Facts:
    """The facts of such a file. Raises OSError, ValueError."""
    try:
        return facts_of([json.loads(read_regular(path, FILE_MAX))])
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def _annotations(monitors: bool) -> dict[str, Any]:
    return {"annotations": {MONITOR: "monitor"}} if monitors else {}


def _render_namespace(facts: NamespaceFacts) -> dict[str, Any]:
    metadata = {"name": facts.name, "labels": facts.labels, **_annotations(facts.monitors)}
    return {"kind": "Namespace", "metadata": metadata}


def _render_policy(policy: Policy) -> dict[str, Any]:
    metadata = {
        "namespace": policy.namespace,
        "name": policy.name,
        **_annotations(policy.monitors),
    }
    return {"kind": "NetworkPolicy", "metadata": metadata, "spec": json.loads(policy.spec)}


def _render_pod(pod: PodFacts) -> dict[str, Any]:
    ports = [
        {"name": name, "protocol": PROTOCOLS[protocol].upper(), "containerPort": number}
        for (protocol, name), number in pod.ports.items()
    ]
    return {
        "kind": "Pod",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "labels": pod.labels},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"podIPs": [{"ip": str(address)} for address in pod.addresses]},
    }
