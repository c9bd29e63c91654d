"""The keys of podwired.yaml, their defaults and what they take.

The models are what the daemon uses. An attribute is the key in snake case: `dataDir` is `data_dir`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, PydanticKnownError, PydanticUseDefault

from daemon.config import DEFAULT_CONFLIST, DEFAULT_JOURNAL_BYTES, MIN_JOURNAL_BYTES
from daemon.config import values as v
from daemon.model import parse_node_address, parse_node_name, parse_pod_cidr, parse_prefix
from kernel.model import IPAddress, IPNetwork

Backend = Literal["vxlan", "host-gw", "hybrid", "none"]
ENCAPSULATING = frozenset[Backend]({"vxlan", "hybrid"})
"""Those whose packets go to `vxlan.port`."""
Offload = Literal["auto", "on", "off"]
Mode = Literal["ptp", "bridge"]
Predecessor = Literal["flannel", "kindnet"]
SourceKind = Literal["static", "kubernetes", "etcd"]
UnknownPods = Literal["closed", "open"]

SECTION = "section"
"""The type of errors that concern the members of a mapping together."""
_VNI_MAX = 2**24 - 1  # RFC 7348 section 5
PLUGIN_MAX = 64 << 10
"""Bytes that the configuration of one chained plugin may have."""
_LEASE_MIN, _LEASE_MAX = 60, 366 * 86400  # the longest pause between two attempts, twice

AnyPath = Annotated[Path, v.text(v.parse_path)]
Port = Annotated[int, *v.whole(1, v.PORT_MAX)]
Prefixes = tuple[Annotated[IPNetwork, v.text(parse_prefix)], ...]
PodCidr = Annotated[IPNetwork, v.text(parse_pod_cidr)]
NodeAddress = Annotated[IPAddress, v.text(parse_node_address)]
NodeName = Annotated[str, v.text(parse_node_name)]
_ClusterCidrs = Annotated[
    tuple[PodCidr, ...], AfterValidator(v.check_filled), AfterValidator(v.check_disjoint)
]
_Endpoints = Annotated[
    tuple[Annotated[str, v.text(v.parse_endpoint)], ...], AfterValidator(v.check_filled)
]


def _key(attribute: str) -> str:
    return to_camel(attribute).replace("Cidrs", "CIDRs")


class Section(BaseModel):
    """A mapping of known keys. A key without value counts as left out."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=_key,
        validate_by_name=True,
        validate_by_alias=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def leave_out(cls, value: object, info: ValidationInfo) -> object:
        """A key's value as it stands. Raises where it has none."""
        if value is not None:
            return value
        required = cls.model_fields[info.field_name or ""].is_required()
        raise PydanticKnownError("missing") if required else PydanticUseDefault()

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The keys as the file spells them."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())


def section_error(why: str) -> PydanticCustomError:
    """What a section raises whose members are right each, and wrong together."""
    return PydanticCustomError(SECTION, "{why}", {"why": why})


def keys_at(section: type[Section], path: Sequence[int | str]) -> tuple[str, ...]:
    """The keys of the section at a path below another one."""
    for step in path:
        found = [f for f in section.model_fields.values() if f.alias == step]
        section = next(filter(None, map(_section_in, [f.annotation for f in found])), section)
    return section.keys()


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


class KubernetesSettings(Section):
    """`source.kubernetes`: the cluster is Kubernetes'.

    cluster_cidrs: contain all nodes' pod CIDRs; nothing outside of them is ever routed. None =
        those of kubeadm, which the API has.
    kubeconfig: None = the pod's own service account.
    namespace: of the objects that the daemons publish.
    node_addresses: prefixes of the internal addresses that nodes may be reached by; none = any.
    """

    cluster_cidrs: _ClusterCidrs = ()
    kubeconfig: AnyPath | None = None
    namespace: Annotated[str, v.text(v.parse_namespace)] = "podwire"
    node_addresses: Prefixes = ()


class PrefixLengths(Section):
    """`source.etcd.prefixLength`: of the pod CIDR that a node leases, by family."""

    ipv4: Annotated[int, *v.whole(8, 30)] = 24
    ipv6: Annotated[int, *v.whole(8, 126)] = 64

    def of(self, version: int) -> int:
        """The length for an IP version."""
        return self.ipv4 if version == 4 else self.ipv6


class EtcdSettings(Section):
    """`source.etcd`: the cluster is what the daemons publish in an etcd (v3).

    cluster_cidrs: what nodes lease their pod CIDRs from.
    addresses: of this node; none = those from which it reaches an endpoint.
    """

    endpoints: _Endpoints
    cluster_cidrs: _ClusterCidrs
    prefix_length: PrefixLengths = PrefixLengths()
    addresses: tuple[NodeAddress, ...] = ()
    ca_file: AnyPath | None = None
    cert_file: AnyPath | None = None
    key_file: AnyPath | None = None
    username: Annotated[str, v.text(v.parse_user_name)] = ""
    password_file: AnyPath | None = None
    prefix: Annotated[str, v.text(v.parse_key_prefix)] = "/podwire"
    lease_seconds: Annotated[int, *v.whole(_LEASE_MIN, _LEASE_MAX)] = 86400

    @model_validator(mode="after")
    def _check(self) -> Self:
        for one, other in (("cert_file", "key_file"), ("username", "password_file")):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise section_error(f"needs both of {_key(one)} and {_key(other)}, or none")
        if len({a.version for a in self.addresses}) < len(self.addresses):
            raise section_error("addresses: one of each family at most")
        for prefix in self.cluster_cidrs:
            length = self.prefix_length.of(prefix.version)
            if length < prefix.prefixlen:
                name = f"prefixLength.ipv{prefix.version}"
                raise section_error(f"{name} is {length}, which does not fit into {prefix}")
        return self


class SourceSettings(Section):
    """`source`: where the cluster is described; exactly one of these. static: a file of nodes."""

    static: AnyPath | None = None
    kubernetes: KubernetesSettings | None = None
    etcd: EtcdSettings | None = None

    @property
    def kind(self) -> SourceKind:
        """Which of them it is."""
        if self.static:
            return "static"
        return "kubernetes" if self.kubernetes else "etcd"

    @property
    def cluster_cidrs(self) -> tuple[IPNetwork, ...]:
        """What contains all pod CIDRs; empty where the source itself says that."""
        section = self.kubernetes or self.etcd
        return section.cluster_cidrs if section else ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name, value in self if value is not None]
        if not given:
            raise section_error(f"needs one of the keys {', '.join(self.keys())}")
        if len(given) > 1:
            raise section_error(f"has {' and '.join(given)}, must have one of them")
        return self


class VxlanSettings(Section):
    """`vxlan`: the overlay. checksum_offload "auto": off where the kernel is known to err."""

    vni: Annotated[int, *v.whole(1, _VNI_MAX)] = 1
    port: Port = 8472
    device: Annotated[str, v.text(v.parse_link_name)] = "podwire-vxlan"
    checksum_offload: Annotated[Offload, v.one_of(Offload)] = "auto"


class ChainedPlugin(Section):
    """A member of `conflist.plugins`: the configuration of another plugin, all of it its own."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, v.text(v.parse_plugin_type)]

    def render(self) -> dict[str, object]:
        """The configuration as JSON has it."""
        others = {key: v.plain_json(value) for key, value in (self.model_extra or {}).items()}
        return {"type": self.type, **others}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(json.dumps(self.render())) > PLUGIN_MAX:
            raise section_error(f"has more than {PLUGIN_MAX >> 10} KiB as JSON")
        return self


class ConflistSettings(Section):
    """`conflist`: the CNI configuration that the daemon writes for its node.

    plugins: what follows podwire's own entry.
    exclusive: those of others in its folder are set aside, but for what `leave` matches: patterns
    of file names.
    """

    path: Annotated[Path, v.text(v.parse_conflist_path)] = DEFAULT_CONFLIST
    name: Annotated[str, v.text(v.parse_network_name)] = "podwire"
    mode: Annotated[Mode, v.one_of(Mode)] = "ptp"
    ip_masq: Annotated[bool, v.boolean()] = True
    non_masquerade_cidrs: Prefixes = ()
    source_check: Annotated[bool, v.boolean()] = True
    allowed_source_prefixes: Prefixes = ()
    plugins: Annotated[tuple[ChainedPlugin, ...], AfterValidator(v.check_few)] = ()
    cni_version: Annotated[str, v.text(v.parse_version)] = "1.0.0"
    exclusive: Annotated[bool, v.boolean()] = False
    leave: tuple[Annotated[str, v.text(v.parse_file_pattern)], ...] = ("*multus*", "*istio*")


class JournalSettings(Section):
    """`journal`: the record of changes; max_bytes bounds its two files together."""

    path: AnyPath
    max_bytes: Annotated[int, *v.whole(MIN_JOURNAL_BYTES, 1 << 40)] = DEFAULT_JOURNAL_BYTES


class HealthSettings(Section):
    """`health`: probes between the daemons. interval: seconds; budget: probes a second in all."""

    port: Port = 8473
    interval: Annotated[float, *v.whole(1, 3600)] = 3.0
    budget: Annotated[float, *v.whole(1, 1000)] = 20.0


class MetricsSettings(Section):
    """`metrics`: where metrics and the state of health are served, by HTTP."""

    listen: Annotated[tuple[str, int], v.text(v.parse_listen)] = ("127.0.0.1", 9473)


class HostPortSettings(Section):
    """`hostPorts`. exclude: addresses that host ports never capture, though the node has them."""

    exclude: Prefixes = ()


class PolicySettings(Section):
    """`policy`: NetworkPolicies are enforced.

    dir: a folder of files with them; None: those of Kubernetes, where that is the source.
    unknown_pods: what pods whose labels are not known may do in a namespace with enforced policies.
    """

    dir: AnyPath | None = None
    unknown_pods: Annotated[UnknownPods, v.one_of(UnknownPods)] = "closed"


class Settings(Section):
    """podwired.yaml.

    node: this node's name in the source.
    underlay: the family that encapsulated packets go in; None = see `Node.underlay`.
    mtu: of pods' links in bytes; 0 = what the uplink leaves.
    allow_overlap: networks of the node that pod CIDRs may overlap.
    migrate_from: the plugin that attached the pods that run, whose routes to other nodes go.
    conflist: None = not written. health, metrics, policy: None = off.
    """

    node: NodeName
    backend: Annotated[Backend, v.one_of(Backend)] = "vxlan"
    source: SourceSettings
    underlay: Annotated[Literal[4, 6], v.text(v.parse_family)] | None = None
    vxlan: VxlanSettings = VxlanSettings()
    mtu: Annotated[int, *v.whole(0, v.MTU_MAX), AfterValidator(v.check_mtu)] = 0
    allow_overlap: Prefixes = ()
    migrate_from: Annotated[Predecessor, v.one_of(Predecessor)] | None = None
    host_ports: HostPortSettings = HostPortSettings()
    conflist: ConflistSettings | None = ConflistSettings()
    journal: JournalSettings
    health: HealthSettings | None = HealthSettings()
    metrics: MetricsSettings | None = MetricsSettings()
    policy: PolicySettings | None = PolicySettings()
    data_dir: AnyPath
    socket: Annotated[Path, v.text(v.parse_socket)]
    status_file: AnyPath

    @property
    def enforces_policies(self) -> bool:
        """Whether there is a source of policies."""
        return bool(self.policy and (self.policy.dir or self.source.kubernetes))

    @field_validator("*", mode="before")
    @classmethod
    def leave_out(cls, value: object, info: ValidationInfo) -> object:
        """Beside what every section does: `false` for no such thing at all."""
        if info.field_name not in ("conflist", "health", "metrics", "policy"):
            return super().leave_out(value, info)
        if isinstance(value, v.Plain) and value == "false":
            return None
        if isinstance(value, str):
            raise ValueError("must be a mapping, or false for none")
        # `conflist:` without value says that none is written.
        return value if info.field_name == "conflist" else super().leave_out(value, info)

    @model_validator(mode="after")
    def _check_predecessor(self) -> Self:
        is_ptp = self.conflist is not None and self.conflist.mode == "ptp"
        if self.migrate_from == "flannel" and is_ptp:
            why = "migrateFrom: flannel needs conflist.mode: bridge, for its pods are on a bridge"
            raise section_error(why)
        return self
