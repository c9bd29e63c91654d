"""podwired.yaml: what an operator sets for the daemon of one node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cni_plugin.host import DEFAULT_DATA_DIR
from daemon.config.paths import check_paths
from daemon.config.ports import check_ports
from daemon.config.yaml import FILE_MAX, Fault, FileFault, Item, load
from daemon.model import parse_node_name
from kernel.model import IPAddress, IPNetwork

if TYPE_CHECKING:
    from daemon.config.file import SettingsFile
    from daemon.config.sources import SourceFile

Backend = Literal["vxlan", "host-gw", "hybrid", "none"]
Offload = Literal["auto", "on", "off"]
Mode = Literal["ptp", "bridge"]
SourceKind = Literal["static", "kubernetes", "etcd"]

DEFAULT_SETTINGS = Path("/etc/podwire/podwired.yaml")
DEFAULT_SOCKET = Path("/run/podwire/podwire.sock")
DEFAULT_CONFLIST = Path("/etc/cni/net.d/05-podwire.conflist")

_FAMILIES: dict[str | None, Literal[4, 6] | None] = {None: None, "ipv4": 4, "ipv6": 6}


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """The cluster is a file's list of nodes."""

    kind: ClassVar[SourceKind] = "static"
    path: Path


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """The cluster is Kubernetes'.

    cluster_cidrs: what all nodes' pod CIDRs are in; nothing outside of them is ever routed.
    kubeconfig: None = the pod's own service account.
    namespace: of the objects that the daemons publish.
    start_spread: seconds over which daemons that start together ask for the whole list.
    """

    kind: ClassVar[SourceKind] = "kubernetes"
    cluster_cidrs: tuple[IPNetwork, ...]
    kubeconfig: Path | None = None
    namespace: str = "podwire"
    start_spread: float = 30.0


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """The cluster is what the daemons publish in an etcd (v3).

    cluster_cidrs: what nodes lease their pod CIDRs from. prefix_length: of a node's pod CIDR, by
    IP version. addresses: of this node; none = those from which it reaches an endpoint.
    """

    kind: ClassVar[SourceKind] = "etcd"
    endpoints: tuple[str, ...]
    cluster_cidrs: tuple[IPNetwork, ...]
    prefix_length: Mapping[int, int]
    addresses: tuple[IPAddress, ...] = ()
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    prefix: str = "/podwire"
    lease_seconds: int = 86400


SourceSettings = StaticSettings | KubernetesSettings | EtcdSettings


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """Probes between the daemons. interval: seconds; budget: probes a second, to all peers."""

    port: int = 8473
    interval: float = 10.0
    budget: float = 20.0


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics and the state of health are served, by HTTP."""

    host: str = "127.0.0.1"
    port: int = 9473


@dataclass(frozen=True, slots=True)
class VxlanSettings:
    """The overlay. checksum_offload "auto": off where the kernel is known to get it wrong."""

    vni: int = 1
    port: int = 8472
    device: str = "podwire-vxlan"
    checksum_offload: Offload = "auto"


@dataclass(frozen=True, slots=True)
class ConflistSettings:
    """The CNI configuration that the daemon writes for its node."""

    path: Path = DEFAULT_CONFLIST
    name: str = "podwire"
    mode: Mode = "ptp"
    ip_masq: bool = True
    cni_version: str = "1.0.0"


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """The record of changes; max_bytes bounds its two files together."""

    path: Path
    max_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """The daemon's settings.

    node: this node's name in the source.
    underlay: the family that encapsulated packets go in; None = that of the node's first address.
    mtu: of pods' links in bytes; 0 = what the uplink leaves.
    allow_overlap: networks of the node that pod CIDRs may overlap.
    conflist: None = not written. health, metrics: None = not wanted.
    """

    node: str
    source: SourceSettings
    data_dir: Path
    socket: Path
    status_file: Path
    journal: JournalSettings
    backend: Backend
    underlay: Literal[4, 6] | None
    vxlan: VxlanSettings
    mtu: int
    allow_overlap: tuple[IPNetwork, ...]
    conflist: ConflistSettings | None
    health: HealthSettings | None
    metrics: MetricsSettings | None


def load_settings(
    path: Path, env: Mapping[str, str] | None = None, host_name: str | None = None
) -> Settings:
    """The settings in a file. Raises FileFault, also where the file cannot be read.

    What the file leaves out comes from the environment (PODWIRE_SOCKET, PODWIRE_DATA_DIR), then
    from the defaults.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise FileFault(path, 0, f"could not be read: {error.strerror}") from error
    return parse_settings(data, path, env, host_name)


def parse_settings(
    data: bytes,
    file: Path | str,
    env: Mapping[str, str] | None = None,
    host_name: str | None = None,
) -> Settings:
    """The settings in a file's content; `file` is what errors call it. Raises FileFault."""
    # pydantic costs memory and start-up time, which a daemon without configuration does not pay.
    from daemon.config.file import read_settings_file

    surroundings = os.environ if env is None else env
    name = os.uname().nodename if host_name is None else host_name

    def read(root: Item) -> Settings:
        settings = _settle(read_settings_file(root), root, surroundings, name)
        check_paths(settings, root)
        check_ports(settings, root)
        return settings

    return load(data, file, read)


def _settle(file: SettingsFile, root: Item, env: Mapping[str, str], host_name: str) -> Settings:
    data_dir = file.data_dir or _place(env, "PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    socket = file.socket or _place(env, "PODWIRE_SOCKET", DEFAULT_SOCKET)
    journal = {"path": data_dir / "journal.jsonl", **file.journal.given()}
    return Settings(
        node=file.node or _node_of(host_name, root),
        source=_settle_source(file.source),
        data_dir=data_dir,
        socket=socket,
        status_file=file.status_file or socket.parent / "status.json",
        journal=JournalSettings(**journal),
        backend=file.backend,
        underlay=_FAMILIES[file.underlay],
        vxlan=VxlanSettings(**file.vxlan.given()),
        mtu=file.mtu,
        allow_overlap=file.allow_overlap,
        conflist=ConflistSettings(**file.conflist.given()) if file.conflist else None,
        health=HealthSettings(**file.health.given()) if file.health else None,
        metrics=MetricsSettings(*(file.metrics.listen or ())) if file.metrics else None,
    )


def _settle_source(file: SourceFile) -> SourceSettings:
    if file.kubernetes:
        return KubernetesSettings(**file.kubernetes.given())
    if file.etcd:
        lengths = file.etcd.lengths()
        return EtcdSettings(**{**file.etcd.given(), "prefix_length": lengths})
    assert file.static is not None  # noqa: S101 - SourceFile has exactly one of them
    return StaticSettings(file.static)


def _place(env: Mapping[str, str], variable: str, default: Path) -> Path:
    value = env.get(variable, "")
    return Path(value) if value.startswith("/") else default


def _node_of(host_name: str, root: Item) -> str:
    # Kubernetes names a node by its host name in lower case (kubelet, nodeutil.GetHostname).
    name = host_name.strip().lower()
    try:
        return parse_node_name(name)
    except ValueError as error:
        why = f"needs the key node, for the host name {name!r} {error}"
        raise Fault(root, why, shown=False) from error
