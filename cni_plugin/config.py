"""stdin of a CNI call as a checked network configuration.

Keys and meaning are those of the reference `bridge` and `ptp`; unknown keys are tolerated, for
other plugins' and runtimes' sake.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cni_plugin import versions
from cni_plugin.errors import DECODING_FAILURE, INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni_plugin.request import NAME, NAME_MAX, link_name_fault

STDIN_MAX = 4 << 20  # bytes
_NESTING_MAX = 64
_FILE_NAME_MAX = 255  # NAME_MAX, linux/limits.h
DROP_IN_MODES = ("bridge", "ptp")

Mac = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")]


class _Keys(BaseModel):
    """Strict values, immutable; key names in any case, as Go's decoder takes them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _canonical_keys(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        names = {field.alias or name for name, field in cls.model_fields.items()}
        by_lower = {name.lower(): name for name in names}
        exact = {key: v for key, v in value.items() if key in names and v is not None}
        other = {
            by_lower[k.lower()]: v
            for k, v in value.items()
            if k.lower() in by_lower and v is not None
        }
        return other | exact


class Dns(_Keys):
    """Resolver settings, for the result only."""

    nameservers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []


class CapabilityDns(_Keys):
    """The dns capability's argument (CONVENTIONS.md): its keys are not those of `dns`."""

    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []


def _all_aliases(value: Any) -> Any:
    """CONVENTIONS.md has a list; podman 4 sends lists by network, of all networks of the pod."""
    if isinstance(value, dict) and all(isinstance(names, list) for names in value.values()):
        return [name for names in value.values() for name in names]
    return value


class RuntimeConfig(_Keys):
    """Capability arguments."""

    mac: Mac | Literal[""] = ""
    ips: list[str] = []
    ip_ranges: list[Any] = Field(default=[], alias="ipRanges")
    dns: CapabilityDns | None = None
    aliases: Annotated[list[str], BeforeValidator(_all_aliases)] = []


class CniArgs(_Keys):
    """args.cni of the configuration."""

    mac: Mac | Literal[""] = ""
    ips: list[str] = []


class Args(_Keys):
    """args of the configuration; other tools' members are theirs."""

    cni: CniArgs = CniArgs()


class ValidAttachment(_Keys):
    """A member of cni.dev/valid-attachments."""

    container_id: str = Field(alias="containerID")
    ifname: str


def _canonical_ipam(value: Any) -> Any:
    return _canonical(value, ("type", "dataDir")) if isinstance(value, dict) else value


class NetConf(_Keys):
    """A network configuration. mtu in bytes, 0 = that of the node's uplink."""

    cni_version: str = Field(default="", alias="cniVersion")
    name: str
    type: str = ""
    mode: Literal["bridge", "ptp"] | None = None
    bridge: Annotated[str, Field(min_length=1, max_length=15)] = "cni0"
    is_gateway: bool = Field(default=False, alias="isGateway")
    is_default_gateway: bool = Field(default=False, alias="isDefaultGateway")
    force_address: bool = Field(default=False, alias="forceAddress")
    ip_masq: bool = Field(default=False, alias="ipMasq")
    ip_masq_backend: Literal["", "iptables", "nftables"] = Field(default="", alias="ipMasqBackend")
    mtu: Annotated[int, Field(ge=0, le=65535)] = 0
    hairpin_mode: bool | None = Field(default=None, alias="hairpinMode")
    promisc_mode: bool = Field(default=False, alias="promiscMode")
    vlan: Annotated[int, Field(ge=0, le=4094)] = 0
    vlan_trunk: list[Any] = Field(default=[], alias="vlanTrunk")
    preserve_default_vlan: bool = Field(default=False, alias="preserveDefaultVlan")
    mac_spoof_check: bool = Field(default=False, alias="macspoofchk")
    enable_dad: bool = Field(default=False, alias="enabledad")
    disable_container_interface: bool = Field(default=False, alias="disableContainerInterface")
    port_isolation: bool = Field(default=False, alias="portIsolation")
    ipam: Annotated[dict[str, Any], BeforeValidator(_canonical_ipam)] = {}
    dns: Dns = Dns()
    args: Args = Args()
    runtime_config: RuntimeConfig = Field(default=RuntimeConfig(), alias="runtimeConfig")
    prev_result: dict[str, Any] | None = Field(default=None, alias="prevResult")
    valid_attachments: list[ValidAttachment] | None = Field(
        default=None, alias="cni.dev/valid-attachments"
    )

    @property
    def uses_ipam(self) -> bool:
        """Whether the network has addresses; the reference plugins take type "" for none."""
        return bool(self.ipam_type) or bool(self.ipam.keys() - {"type"})

    @property
    def ipam_type(self) -> str:
        """The IPAM plugin's name; empty for a network without addresses."""
        kind = self.ipam.get("type", "")
        return kind if isinstance(kind, str) else ""


@dataclass(frozen=True, slots=True)
class Given:
    """What stdin gave: decoded, its version, checked.

    fault: why conf is only what remains of it. derived: what others made of it alone.
    """

    raw: Mapping[str, Any]
    version: str
    conf: NetConf
    fault: CniError | None = None
    derived: dict[Hashable, object] = field(default_factory=dict)


# A node has a handful of networks, and all ADDs of a network send the same bytes.
_REMEMBERED_MAX, _REMEMBERED_BYTES = 32, 16 << 10
_remembered: dict[bytes, Given] = {}


def recall(stdin: bytes) -> Given | None:
    """What the same bytes gave before; None where they are new."""
    return _remembered.get(stdin)


def remember(stdin: bytes, given: Given) -> None:
    """Keep what a configuration gave for the next call that sends it. Nobody may change it."""
    if len(stdin) <= _REMEMBERED_BYTES:
        while len(_remembered) >= _REMEMBERED_MAX:
            # Another thread may be quicker.
            _remembered.pop(next(iter(_remembered), b""), None)
        _remembered[stdin] = given


def decode(stdin: bytes) -> dict[str, Any]:
    """stdin as a JSON object. Raises code 6."""
    if not stdin.strip():
        raise CniError(DECODING_FAILURE, "the network configuration on stdin is empty")
    if len(stdin) > STDIN_MAX:
        msg = f"the network configuration on stdin is larger than {STDIN_MAX >> 20} MiB"
        raise CniError(DECODING_FAILURE, msg)
    try:
        value = json.loads(stdin.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CniError(DECODING_FAILURE, "the network configuration is not JSON", words) from error
    if not isinstance(value, dict):
        raise CniError(DECODING_FAILURE, "the network configuration is not a JSON object")
    _check_nesting(value)
    _check_text(stdin, value)
    return _canonical(value, ("cniVersion", "name", "ipam", "cni.dev/valid-attachments"))


def _canonical(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The object with these keys in this spelling, for Go's decoder takes them in any case."""
    by_lower = {name.lower(): name for name in names}
    renamed = {
        by_lower[key.lower()]: item
        for key, item in value.items()
        if key not in names and key.lower() in by_lower
    }
    return {**renamed, **value} if renamed else value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _check_text(stdin: bytes, value: dict[str, Any]) -> None:
    # Half a character, such as \ud800 alone, is no text: neither a path nor an answer can hold it.
    if b"\\ud" in stdin.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            words = f"{error.object[error.start]!r} is no character"
            msg = "the network configuration is not JSON"
            raise CniError(DECODING_FAILURE, msg, words) from error


def _check_nesting(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(_NESTING_MAX):
        level = [child for parent in level for child in _containers(parent)]
        if not level:
            return
    raise CniError(DECODING_FAILURE, "the network configuration is nested too deeply")


def _containers(parent: Any) -> list[Any]:
    children = parent.values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, dict | list)]


def parse_config(raw: Mapping[str, Any]) -> NetConf:
    """A decoded configuration, checked. Raises code 7, 2 or 1, naming key and value."""
    _check_name(raw.get("name"))
    try:
        conf = NetConf.model_validate(raw)
    except ValidationError as error:
        raise CniError(INVALID_CONFIG, _first_fault(error), f"network {raw['name']}") from error
    _check_combinations(conf)
    return conf


def parse_remains(raw: Mapping[str, Any]) -> NetConf:
    """What DEL can use of a configuration that is wrong elsewhere. Raises code 7 for its name."""
    _check_name(raw.get("name"))
    ipam = raw.get("ipam")
    kept = {"type", "dataDir"}
    texts = (
        {k: v for k, v in ipam.items() if k in kept and isinstance(v, str)}
        if isinstance(ipam, dict)
        else {}
    )
    return NetConf(name=raw["name"], ipam=texts if _is_program(texts.get("type", "")) else {})


def _check_name(name: object) -> None:
    if name is None or name == "":
        raise CniError(INVALID_CONFIG, "the network configuration has no name")
    if not isinstance(name, str) or not NAME.match(name) or len(name) > NAME_MAX:
        why = f"must start with a letter or digit, then letters, digits, _ . -, at most {NAME_MAX}"
        raise CniError(INVALID_CONFIG, f"name {str(name)[:80]!r} is invalid: {why}")


def _is_program(kind: object) -> bool:
    """Whether this can be an IPAM type; it goes into links' aliases too, which blanks divide."""
    if not isinstance(kind, str) or len(kind) > _FILE_NAME_MAX:
        return False
    return kind == "" or NAME.match(kind) is not None


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"]) or "configuration"
    shown = repr(fault.get("input"))
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return f"{key}: {shown} is invalid: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _check_combinations(conf: NetConf) -> None:
    if "/" in conf.type:
        raise CniError(INVALID_CONFIG, f"type: {conf.type!r} must be a plain file name")
    kind = conf.ipam.get("type", "")
    if not _is_program(kind):
        raise CniError(INVALID_CONFIG, f"ipam.type: {str(kind)[:80]!r} must be a plain file name")
    fault = link_name_fault(conf.bridge)
    if fault:
        raise CniError(INVALID_CONFIG, f"bridge: {conf.bridge!r} is invalid: {fault}")
    for key, value in (("vlan", conf.vlan), ("vlanTrunk", conf.vlan_trunk)):
        if value:
            why = "podwire does no VLAN filtering: remove the key, or use one bridge per VLAN"
            raise CniError(UNSUPPORTED_FIELD, f"{key}: {value!r} is not supported", why)
    if conf.hairpin_mode and conf.promisc_mode:
        msg = "hairpinMode: true and promiscMode: true exclude each other"
        raise CniError(INVALID_CONFIG, msg)
    if conf.disable_container_interface and conf.uses_ipam:
        msg = (
            "disableContainerInterface: true excludes ipam: the interface would have no use for it"
        )
        raise CniError(INVALID_CONFIG, msg)


def declared_version(raw: Mapping[str, Any]) -> str:
    """The CNI version that the caller wants its answer in. Raises code 1 or 6."""
    return versions.require_supported(raw.get("cniVersion"))
