"""podwired.yaml as it is written: its keys, and the place of what is wrong.

What the file leaves out is None here, unless its default depends on nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticKnownError, PydanticUseDefault

from daemon.cluster import parse_node_name, parse_prefix
from daemon.settings import Backend, Mode, Offload
from daemon.settingsvalues import (
    MTU_MAX,
    Plain,
    boolean,
    check_mtu,
    one_of,
    parse_conflist_path,
    parse_link_name,
    parse_network_name,
    parse_path,
    parse_socket,
    parse_version,
    parsed,
    whole,
)
from daemon.yamlfile import Fault, Item
from daemon.yamlread import unknown_key
from kernel.model import IPNetwork

_VNI_MAX = 2**24 - 1  # RFC 7348 section 5
_PORT_MAX = 2**16 - 1
_Path = Annotated[Path, parsed(parse_path)]
_Family = Literal["ipv4", "ipv6"]


class _Section(BaseModel):
    """A mapping of known keys; one without value counts as left out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", alias_generator=to_camel)

    @field_validator("*", mode="before")
    @classmethod
    def _leave_out(cls, value: object, info: ValidationInfo) -> object:
        name = info.field_name or ""
        # `conflist:` without value says that none is written.
        if value is not None or name == "conflist":
            return value
        raise PydanticKnownError("missing") if name in cls._required() else PydanticUseDefault()

    @classmethod
    def _required(cls) -> set[str]:
        return {name for name, field in cls.model_fields.items() if field.is_required()}

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The keys as the file spells them."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    def given(self) -> dict[str, Any]:
        """What the file says, by attribute."""
        return {name: value for name, value in self if value is not None}


class SourceFile(_Section):
    """`source`: where the cluster is described."""

    static: _Path


class VxlanFile(_Section):
    """`vxlan`: the overlay."""

    vni: Annotated[int, *whole(1, _VNI_MAX)] | None = None
    port: Annotated[int, *whole(1, _PORT_MAX)] | None = None
    device: Annotated[str, parsed(parse_link_name)] | None = None
    checksum_offload: Annotated[Offload, one_of(Offload)] | None = None


class ConflistFile(_Section):
    """`conflist`: the CNI configuration that the daemon writes."""

    path: Annotated[Path, parsed(parse_conflist_path)] | None = None
    name: Annotated[str, parsed(parse_network_name)] | None = None
    mode: Annotated[Mode, one_of(Mode)] | None = None
    ip_masq: Annotated[bool, boolean()] | None = None
    cni_version: Annotated[str, parsed(parse_version)] | None = None


class JournalFile(_Section):
    """`journal`: the record of changes."""

    path: _Path | None = None
    max_bytes: Annotated[int, *whole(1 << 16, 1 << 40)] | None = None


class SettingsFile(_Section):
    """The file. conflist: None = `conflist: false`, none is written."""

    node: Annotated[str, parsed(parse_node_name)] | None = None
    backend: Annotated[Backend, one_of(Backend)] = "vxlan"
    source: SourceFile
    underlay: Annotated[_Family, one_of(_Family)] | None = None
    vxlan: VxlanFile = VxlanFile()
    mtu: Annotated[int, *whole(0, MTU_MAX), AfterValidator(check_mtu)] = 0
    allow_overlap: tuple[Annotated[IPNetwork, parsed(parse_prefix)], ...] = ()
    conflist: ConflistFile | None = ConflistFile()
    journal: JournalFile = JournalFile()
    data_dir: _Path | None = None
    socket: Annotated[Path, parsed(parse_socket)] | None = None
    status_file: _Path | None = None

    @field_validator("conflist", mode="before")
    @classmethod
    def _none_written(cls, value: object) -> object:
        if isinstance(value, Plain) and value == "false":
            return None
        if isinstance(value, str):
            raise ValueError("must be a mapping, or false for none")
        return value


_SECTIONS: dict[tuple[int | str, ...], type[_Section]] = {
    (): SettingsFile,
    ("source",): SourceFile,
    ("vxlan",): VxlanFile,
    ("conflist",): ConflistFile,
    ("journal",): JournalFile,
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
    if kind == "value_error":
        return Fault(item, str(detail["ctx"]["error"]))
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
