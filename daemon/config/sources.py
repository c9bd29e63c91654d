"""`source` of podwired.yaml as it is written: where the cluster is described."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from daemon.config.section import Section, misfit
from daemon.config.values import (
    check_disjoint,
    check_filled,
    parse_endpoint,
    parse_key_prefix,
    parse_namespace,
    parse_path,
    parse_user_name,
    parsed,
    whole,
)
from daemon.model import parse_node_address, parse_pod_cidr
from kernel.model import IPAddress, IPNetwork

_Path = Annotated[Path, parsed(parse_path)]
_ClusterCidrs = Annotated[
    tuple[Annotated[IPNetwork, parsed(parse_pod_cidr)], ...],
    AfterValidator(check_filled),
    AfterValidator(check_disjoint),
]
_Endpoints = Annotated[
    tuple[Annotated[str, parsed(parse_endpoint)], ...], AfterValidator(check_filled)
]
_FAMILIES = {4: "ipv4", 6: "ipv6"}
_LEASE_MIN, _LEASE_MAX = 60, 366 * 86400  # the longest pause between two attempts, twice


class KubernetesFile(Section):
    """`source.kubernetes`."""

    cluster_cidrs: _ClusterCidrs = Field(alias="clusterCIDRs")
    kubeconfig: _Path | None = None
    namespace: Annotated[str, parsed(parse_namespace)] | None = None
    start_spread: Annotated[int, *whole(0, 3600)] | None = None


class PrefixLengthFile(Section):
    """`source.etcd.prefixLength`: of what a node leases."""

    ipv4: Annotated[int, *whole(8, 30)] = 24
    ipv6: Annotated[int, *whole(8, 126)] = 64


class EtcdFile(Section):
    """`source.etcd`."""

    endpoints: _Endpoints
    cluster_cidrs: _ClusterCidrs = Field(alias="clusterCIDRs")
    prefix_length: PrefixLengthFile = PrefixLengthFile()
    addresses: tuple[Annotated[IPAddress, parsed(parse_node_address)], ...] | None = None
    ca_file: _Path | None = None
    cert_file: _Path | None = None
    key_file: _Path | None = None
    username: Annotated[str, parsed(parse_user_name)] | None = None
    password_file: _Path | None = None
    prefix: Annotated[str, parsed(parse_key_prefix)] | None = None
    lease_seconds: Annotated[int, *whole(_LEASE_MIN, _LEASE_MAX)] | None = None

    def lengths(self) -> dict[int, int]:
        """The prefix length by IP version."""
        return {4: self.prefix_length.ipv4, 6: self.prefix_length.ipv6}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for one, other in (("cert_file", "key_file"), ("username", "password_file")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                names = " and ".join(str(type(self).model_fields[n].alias) for n in (one, other))
                raise misfit(f"needs both of {names}, or none")
        if len({a.version for a in self.addresses or ()}) < len(self.addresses or ()):
            raise misfit("addresses: one of each family at most")
        for prefix in self.cluster_cidrs:
            length = self.lengths()[prefix.version]
            if length < prefix.prefixlen:
                name = f"prefixLength.{_FAMILIES[prefix.version]}"
                raise misfit(f"{name} is {length}, which does not fit into {prefix}")
        return self


class SourceFile(Section):
    """`source`: exactly one of these."""

    static: _Path | None = None
    kubernetes: KubernetesFile | None = None
    etcd: EtcdFile | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name, value in self if value is not None]
        if not given:
            raise misfit(f"needs one of the keys {', '.join(self.keys())}")
        if len(given) > 1:
            raise misfit(f"has {' and '.join(given)}, must have one of them")
        return self
