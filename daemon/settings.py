"""podwired.yaml: what an operator sets for the daemon of one node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cni_plugin.host import DEFAULT_DATA_DIR
from cni_plugin.request import NAME, NAME_MAX, link_name_fault
from cni_plugin.versions import SUPPORTED
from daemon.cluster import parse_node_name, parse_prefix
from daemon.yamlfile import FILE_MAX, Fault, FileFault, Item, load
from daemon.yamlread import (
    Section,
    read_boolean,
    read_choice,
    read_integer,
    read_list,
    read_parsed,
    read_path,
)
from kernel.model import IPNetwork

Backend = Literal["vxlan", "host-gw", "hybrid", "none"]
Offload = Literal["auto", "on", "off"]
Mode = Literal["ptp", "bridge"]
SourceKind = Literal["static"]

DEFAULT_SETTINGS = Path("/etc/podwire/podwired.yaml")
DEFAULT_SOCKET = Path("/run/podwire/podwire.sock")
DEFAULT_CONFLIST = Path("/etc/cni/net.d/05-podwire.conflist")

_KEYS = (
    *("node", "backend", "source", "underlay", "vxlan", "mtu", "allowOverlap"),
    *("conflist", "journal", "dataDir", "socket", "statusFile"),
)
_VNI_MAX = 2**24 - 1  # RFC 7348 section 5
_PORT_MAX = 2**16 - 1
_MTU_MIN, _MTU_MAX = 576, 65535  # RFC 791: what every IPv4 host takes
_SOCKET_PATH_MAX = 107  # sun_path, linux/un.h


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where the cluster is described; path: the file of a static source."""

    kind: SourceKind
    path: Path


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
    conflist: None = not written.
    """

    node: str
    source: SourceSettings
    data_dir: Path
    socket: Path
    status_file: Path
    journal: JournalSettings
    backend: Backend = "vxlan"
    underlay: Literal[4, 6] | None = None
    vxlan: VxlanSettings = VxlanSettings()
    mtu: int = 0
    allow_overlap: tuple[IPNetwork, ...] = ()
    conflist: ConflistSettings | None = ConflistSettings()


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
    surroundings = os.environ if env is None else env
    name = os.uname().nodename if host_name is None else host_name
    return load(data, file, lambda root: _read_settings(root, surroundings, name))


def _read_settings(root: Item, env: Mapping[str, str], host_name: str) -> Settings:
    section = Section(root, _KEYS)
    data_dir = section.get("dataDir", read_path, _place(env, "PODWIRE_DATA_DIR", DEFAULT_DATA_DIR))
    socket = section.get("socket", _read_socket, _place(env, "PODWIRE_SOCKET", DEFAULT_SOCKET))
    return Settings(
        node=_node(section, host_name),
        source=section.require("source", _read_source),
        data_dir=data_dir,
        socket=socket,
        status_file=section.get("statusFile", read_path, socket.with_name("status.json")),
        journal=_journal(section, data_dir),
        backend=section.get("backend", read_choice(get_args(Backend)), "vxlan"),
        underlay=section.get("underlay", _read_family, None),
        vxlan=section.get("vxlan", _read_vxlan, VxlanSettings()),
        mtu=section.get("mtu", _read_mtu, 0),
        allow_overlap=section.get("allowOverlap", read_list(read_parsed(parse_prefix)), ()),
        conflist=_conflist(section),
    )


def _place(env: Mapping[str, str], variable: str, default: Path) -> Path:
    value = env.get(variable, "")
    return Path(value) if value.startswith("/") else default


def _node(section: Section, host_name: str) -> str:
    # Kubernetes names a node by its host name in lower case (kubelet, nodeutil.GetHostname).
    fallback = host_name.strip().lower()
    name = section.get("node", read_parsed(parse_node_name), "")
    if name:
        return name
    try:
        return parse_node_name(fallback)
    except ValueError as error:
        why = f"needs the key node, for the host name {fallback!r} {error}"
        raise Fault(section.item, why, shown=False) from error


def _read_source(item: Item) -> SourceSettings:
    section = Section(item, get_args(SourceKind))
    return SourceSettings("static", section.require("static", read_path))


def _read_family(item: Item) -> Literal[4, 6]:
    return 4 if read_choice(("ipv4", "ipv6"))(item) == "ipv4" else 6


def _read_mtu(item: Item) -> int:
    number = read_integer(0, _MTU_MAX)(item)
    if 0 < number < _MTU_MIN:
        raise Fault(item, f"must be 0 (that of the uplink) or from {_MTU_MIN} to {_MTU_MAX}")
    return number


def _read_vxlan(item: Item) -> VxlanSettings:
    section = Section(item, ("vni", "port", "device", "checksumOffload"))
    usual = VxlanSettings()
    return VxlanSettings(
        vni=section.get("vni", read_integer(1, _VNI_MAX), usual.vni),
        port=section.get("port", read_integer(1, _PORT_MAX), usual.port),
        device=section.get("device", read_parsed(_link_name), usual.device),
        checksum_offload=section.get("checksumOffload", read_choice(get_args(Offload)), "auto"),
    )


def _link_name(text: str) -> str:
    fault = link_name_fault(text)
    if fault:
        raise ValueError(fault)
    return text


def _conflist(section: Section) -> ConflistSettings | None:
    """`conflist: null` and `conflist: false` mean that none is written."""
    if not section.has("conflist"):
        return ConflistSettings()
    return section.get("conflist", _read_conflist, None)


def _read_conflist(item: Item) -> ConflistSettings | None:
    if isinstance(item.content, str):
        if item.plain and item.content == "false":
            return None
        raise Fault(item, "must be a mapping, or false for none")
    section = Section(item, ("path", "name", "mode", "ipMasq", "cniVersion"))
    usual = ConflistSettings()
    return ConflistSettings(
        path=section.get("path", _read_conflist_path, usual.path),
        name=section.get("name", read_parsed(_network_name), usual.name),
        mode=section.get("mode", read_choice(get_args(Mode)), usual.mode),
        ip_masq=section.get("ipMasq", read_boolean, usual.ip_masq),
        cni_version=section.get("cniVersion", read_choice(SUPPORTED), usual.cni_version),
    )


def _read_conflist_path(item: Item) -> Path:
    path = read_path(item)
    # libcni takes a list of plugins from files of this ending only (libcni/conf.go).
    if path.suffix != ".conflist":
        raise Fault(item, "must end in .conflist, or no runtime reads it as a list of plugins")
    return path


def _network_name(text: str) -> str:
    if not NAME.match(text) or len(text) > NAME_MAX:
        why = "must start with a letter or digit, then letters, digits, _ . -"
        raise ValueError(f"{why}, at most {NAME_MAX}")
    return text


def _read_socket(item: Item) -> Path:
    path = read_path(item)
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise Fault(item, f"must have at most {_SOCKET_PATH_MAX} bytes, as every socket's path")
    return path


def _journal(section: Section, data_dir: Path) -> JournalSettings:
    usual = JournalSettings(data_dir / "journal.jsonl")

    def read(item: Item) -> JournalSettings:
        inner = Section(item, ("path", "maxBytes"))
        return JournalSettings(
            inner.get("path", read_path, usual.path),
            inner.get("maxBytes", read_integer(1 << 16, 1 << 40), usual.max_bytes),
        )

    return section.get("journal", read, usual)
