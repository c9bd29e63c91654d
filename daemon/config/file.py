"""podwired.yaml as it is written: its keys, and the place of what is wrong.

What the file leaves out is None here, unless its default depends on nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from daemon.config.schema import Backend, Mode, Offload
from daemon.config.section import WHOLE, Section
from daemon.config.sources import EtcdFile, KubernetesFile, PrefixLengthFile, SourceFile
from daemon.config.values import (
    MTU_MAX,
    Plain,
    Secret,
    boolean,
    check_mtu,
    one_of,
    parse_conflist_path,
    parse_link_name,
    parse_listen,
    parse_network_name,
    parse_path,
    parse_socket,
    parse_version,
    parsed,
    whole,
)
from daemon.config.yaml import Fault, Item
from daemon.config.yamlread import unknown_key
from daemon.model import parse_node_name, parse_prefix
from kernel.model import IPNetwork

_VNI_MAX = 2**24 - 1  # RFC 7348 section 5
_PORT_MAX = 2**16 - 1
_Path = Annotated[Path, parsed(parse_path)]
_Family = Literal["ipv4", "ipv6"]
_REFUSABLE = frozenset({"conflist", "health", "metrics"})


class VxlanFile(Section):
    """`vxlan`: the overlay."""

    vni: Annotated[int, *whole(1, _VNI_MAX)] | None = None
    port: Annotated[int, *whole(1, _PORT_MAX)] | None = None
    device: Annotated[str, parsed(parse_link_name)] | None = None
    checksum_offload: Annotated[Offload, one_of(Offload)] | None = None


class ConflistFile(Section):
    """`conflist`: the CNI configuration that the daemon writes."""

    path: Annotated[Path, parsed(parse_conflist_path)] | None = None
    name: Annotated[str, parsed(parse_network_name)] | None = None
    mode: Annotated[Mode, one_of(Mode)] | None = None
    ip_masq: Annotated[bool, boolean()] | None = None
    cni_version: Annotated[str, parsed(parse_version)] | None = None


class JournalFile(Section):
    """`journal`: the record of changes."""

    path: _Path | None = None
    max_bytes: Annotated[int, *whole(1 << 16, 1 << 40)] | None = None


class HealthFile(Section):
    """`health`: probes between the daemons."""

    port: Annotated[int, *whole(1, _PORT_MAX)] | None = None
    interval: Annotated[int, *whole(1, 3600)] | None = None
    budget: Annotated[int, *whole(1, 1000)] | None = None


class MetricsFile(Section):
    """`metrics`: where they are served."""

    listen: Annotated[tuple[str, int], parsed(parse_listen)] | None = None


class SettingsFile(Section):
    """The file. conflist, health, metrics: None where the file says `false`."""

    node: Annotated[str, parsed(parse_node_name)] | None = None
    backend: Annotated[Backend, one_of(Backend)] = "vxlan"
    source: SourceFile
    underlay: Annotated[_Family, one_of(_Family)] | None = None
    vxlan: VxlanFile = VxlanFile()
    mtu: Annotated[int, *whole(0, MTU_MAX), AfterValidator(check_mtu)] = 0
    allow_overlap: tuple[Annotated[IPNetwork, parsed(parse_prefix)], ...] = ()
    conflist: ConflistFile | None = ConflistFile()
    journal: JournalFile = JournalFile()
    health: HealthFile | None = HealthFile()
    metrics: MetricsFile | None = MetricsFile()
    data_dir: _Path | None = None
    socket: Annotated[Path, parsed(parse_socket)] | None = None
    status_file: _Path | None = None

    @field_validator("*", mode="before")
    @classmethod
    def leave_out(cls, value: object, info: ValidationInfo) -> object:
        """Beside what every section does: `false` for no such thing at all."""
        if info.field_name not in _REFUSABLE:
            return super().leave_out(value, info)
        if isinstance(value, Plain) and value == "false":
            return None
        if isinstance(value, str):
            raise ValueError("must be a mapping, or false for none")
        # `conflist:` without value says that none is written.
        return value if info.field_name == "conflist" else super().leave_out(value, info)


_SECTIONS: dict[tuple[int | str, ...], type[Section]] = {
    (): SettingsFile,
    ("source",): SourceFile,
    ("source", "kubernetes"): KubernetesFile,
    ("source", "etcd"): EtcdFile,
    ("source", "etcd", "prefixLength"): PrefixLengthFile,
    ("vxlan",): VxlanFile,
    ("conflist",): ConflistFile,
    ("journal",): JournalFile,
    ("health",): HealthFile,
    ("metrics",): MetricsFile,
}


def read_settings_file(root: Item) -> SettingsFile:
    """What the file says. Raises Fault for what is wrong first."""
    try:
        return SettingsFile.model_validate(_values(root))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise _fault(root, min(details, key=lambda detail: _order(root, detail))) from error


def _order(root: Item, detail: ErrorDetails) -> tuple[bool, int]:
    # A key that is misspelt comes before the one that is therefore missing.
    return detail["type"] != "extra_forbidden", _find(root, detail["loc"]).line


def _values(item: Item) -> object:
    content = item.content
    if isinstance(content, dict):
        return {key: _values(child) for key, child in content.items()}
    if isinstance(content, list):
        return tuple(map(_values, content))
    return Plain(content) if content is not None and item.plain else content


def _fault(root: Item, detail: ErrorDetails) -> Fault:
    place, kind = detail["loc"], detail["type"]
    item = _find(root, place)
    if kind == "extra_forbidden":
        keys = _SECTIONS[place[:-1]].keys()
        return Fault(item, unknown_key(str(place[-1]), keys), shown=False)
    if kind == "missing":
        # The item is there if its value is what is missing; else it is the mapping's.
        why = "has no value" if item.content is None else f"needs the key {place[-1]}"
        return Fault(item, why, shown=False)
    if kind == WHOLE:
        return Fault(item, detail["msg"], shown=False)
    if kind == "value_error":
        error = detail["ctx"]["error"]
        return Fault(item, str(error), shown=not isinstance(error, Secret))
    return Fault(item, _WORDS[kind])


_WORDS = {"model_type": "must be a mapping", "tuple_type": "must be a list"}


def _find(root: Item, place: tuple[int | str, ...]) -> Item:
    """The item at a place, or the nearest that holds it."""
    item = root
    for step in place:
        if isinstance(item.content, dict) and step in item.content:
            item = item.content[str(step)]
        elif isinstance(item.content, list):
            item = item.content[int(step)]
    return item
