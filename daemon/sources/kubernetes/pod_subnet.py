"""The cluster's pod CIDRs where nobody set them: `networking.podSubnet` of kubeadm.

kubeadm, kind and minikube keep their ClusterConfiguration in a ConfigMap that nodes may read and
only administrators change (kubernetes, cmd/kubeadm/app/phases/uploadconfig/uploadconfig.go). The
controller manager's flag --cluster-cidr is no such authority: each kubelet writes the mirror pods
of its node, under any name (plugin/pkg/admission/noderestriction/admission.go, admitPodCreate).
"""

from __future__ import annotations

from typing import Any

from daemon.config.yaml import FileFault, Item, load
from daemon.log import shorten
from daemon.model import parse_pod_cidr
from daemon.sources.kubernetes.api import Api
from daemon.sources.remote import SourceError
from kernel.model import IPNetwork

PATH = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
_CONTENT = "ClusterConfiguration"
_NAME = "ConfigMap kube-system/kubeadm-config"
_HINT = "set source.kubernetes.clusterCIDRs to prefixes that contain all pod CIDRs"


def read_pod_subnet(api: Api) -> tuple[IPNetwork, ...]:
    """The prefixes that contain all pod CIDRs. Raises SourceError, with what to do."""
    thing = api.find(PATH)
    if thing is None:
        raise SourceError(f"the cluster has no {_NAME}: {_HINT}")
    return parse_pod_subnet(thing)


def parse_pod_subnet(thing: Any) -> tuple[IPNetwork, ...]:
    """The prefixes in the ConfigMap, as it came from JSON. Raises SourceError."""
    data = thing.get("data") if isinstance(thing, dict) else None
    text = data.get(_CONTENT) if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise SourceError(f"{_NAME} has no {_CONTENT}: {_HINT}")
    try:
        found = load(text.encode(errors="replace"), f"{_CONTENT} of {_NAME}", _pod_subnet)
    except FileFault as fault:
        raise SourceError(f"{fault}: {_HINT}") from fault
    if not found:
        raise SourceError(f"{_NAME} has no networking.podSubnet: {_HINT}")
    try:
        return tuple(parse_pod_cidr(prefix.strip()) for prefix in found.split(","))
    except ValueError as error:
        raise SourceError(f"podSubnet of {_NAME} is {shorten(found)}, {error}: {_HINT}") from error


def _pod_subnet(root: Item) -> str:
    found = root.find("networking", "podSubnet").content
    return found if isinstance(found, str) else ""
