"""The network configuration of a CNI call, checked.

Keys and meaning are those of the reference `bridge` and `ptp`; unknown keys are tolerated, for
other plugins' and runtimes' sake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cni_plugin.chained import CHAINED_PROGRAMS, read_features
from cni_plugin.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni_plugin.plugins import portmap
from cni_plugin.request import NAME, NAME_RULE, canonical, is_name, link_name_fault
from cni_plugin.result import canonical_mac
from ipam.errors import ConfigError
from ipam.json_section import Dns, Section, parse_dns, parse_network
from ipam.ranges import IPNetwork
from ipam.transaction import Owner

K = TypeVar("K", bytes, str)
V = TypeVar("V")

_FILE_NAME_MAX = 255  # NAME_MAX, linux/limits.h
DROP_IN_MODES = ("bridge", "ptp")
_OTHERS = frozenset(DROP_IN_MODES) | CHAINED_PROGRAMS
DEFAULT_BRIDGE = "cni0"
LEASING = frozenset({"dhcp"})
"""IPAM plugins that lease addresses by the pod's link, which must be there and up before."""
MAC = re.compile(
    r"[0-9a-f]{2}(:[0-9a-f]{2}){5}|[0-9a-f]{2}(-[0-9a-f]{2}){5}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}",
    re.IGNORECASE,
)
"""The forms that Go's net.ParseMAC takes for an Ethernet address."""
_NO_DNS = Dns()
_NO_PORTS = portmap.PortMapConf()
_VALID = "cni.dev/valid-attachments"


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """Capability arguments (CONVENTIONS.md)."""

    mac: str = ""
    ips: tuple[str, ...] = ()
    ip_ranges: tuple[object, ...] = ()
    dns: Dns = _NO_DNS
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetConf:
    """A network configuration. mtu in bytes, 0 = that of uplink and bridge.

    args_mac and args_ips are of args.cni; args' other members are other tools'.
    features: what a native configuration asks for besides, by the name of the plugin that does it.
    valid_attachments: those that the runtime lists as still there; None where it sent no list. Go's
    runtimes write null for an empty one.
    """

    name: str
    type: str = ""
    mode: str | None = None
    bridge: str = DEFAULT_BRIDGE
    is_gateway: bool = False
    is_default_gateway: bool = False
    force_address: bool = False
    ip_masq: bool = False
    non_masquerade_cidrs: tuple[IPNetwork, ...] = ()
    mtu: int = 0
    hairpin_mode: bool | None = None
    promisc_mode: bool = False
    vlan: int = 0
    vlan_trunk: tuple[object, ...] = ()
    mac_spoof_check: bool | None = None
    source_check: bool | None = None
    allowed_source_prefixes: tuple[IPNetwork, ...] = ()
    enable_dad: bool = False
    disable_container_interface: bool = False
    port_isolation: bool = False
    ipam: Mapping[str, Any] = field(default_factory=dict)
    dns: Dns = _NO_DNS
    args_mac: str = ""
    args_ips: tuple[str, ...] = ()
    runtime_config: RuntimeConfig = field(default_factory=RuntimeConfig)
    port_map: portmap.PortMapConf = _NO_PORTS
    features: Mapping[str, object] = field(default_factory=dict)
    prev_result: Mapping[str, Any] | None = None
    valid_attachments: frozenset[Owner] | None = None

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
class ParsedConfig:
    """stdin decoded (raw), its CNI version, and the checked configuration.

    fault: why conf has only the keys that DEL needs. refusal: that of a version which podwire does
    not speak, where the verb is DEL. derived: values that other modules computed
    from the configuration alone, by a key of theirs.
    """

    raw: Mapping[str, Any]
    version: str
    conf: NetConf
    fault: CniError | None = None
    refusal: CniError | None = None
    derived: dict[Hashable, object] = field(default_factory=dict)


# A node has a handful of networks, and all ADDs of a network send the same bytes, or differ by
# runtimeConfig.
_CACHE_MAX, _CACHED_TEXT_MAX = 32, 16 << 10
_cache: dict[bytes, ParsedConfig] = {}
_networks: dict[str, NetConf] = {}
_RUNTIME_CONFIG = "runtimeconfig"
_IPAM_KEYS = frozenset({"name", "ipam", "args", _RUNTIME_CONFIG, "prevresult", _VALID})


def cached_config(stdin: bytes) -> ParsedConfig | None:
    """What an earlier ADD with the same bytes parsed; None where they are new."""
    return _cache.get(stdin)


def read_config(
    stdin: bytes, raw: Mapping[str, Any], version: str, command: str, *, is_ipam: bool = False
) -> ParsedConfig:
    """The checked configuration of decoded stdin; an ADD's is cached. Raises code 7 or 2.

    A wrong configuration does not stop DEL, whatever was edited since ADD: it gets the keys that
    removal needs. is_ipam: whether podwire is called as an IPAM plugin. The other keys are then the
    main plugin's, and mean what they mean there: `mode` of ipvlan, `vlan` of sriov.
    """
    try:
        parsed = ParsedConfig(raw, version, parse_config(_ipam_part(raw) if is_ipam else raw))
    except CniError as fault:
        if command != "DEL":
            raise
        return ParsedConfig(raw, version, parse_minimal(raw), fault)
    # Other verbs' stdin has results in it and is different each time.
    own = any(key.lower() == _RUNTIME_CONFIG for key in raw)
    if command == "ADD" and not own and not is_ipam:
        remember(_cache, stdin, parsed)
    return parsed


def _ipam_part(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that an IPAM plugin reads."""
    return {key: value for key, value in raw.items() if key.lower() in _IPAM_KEYS}


def remember(cache: dict[K, V], key: K, value: V) -> None:
    """Keep a value by the text that it was parsed from, unless that is long; the oldest go."""
    if len(key) > _CACHED_TEXT_MAX:
        return
    while len(cache) >= _CACHE_MAX:
        cache.pop(next(iter(cache), key), None)  # another thread may have emptied it
    cache[key] = value


def parse_config(raw: Mapping[str, Any]) -> NetConf:
    """A decoded configuration, checked. Raises code 7 or 2, naming key and value."""
    _check_name(raw.get("name"))
    try:
        return _with_runtime_config(_parse_network(raw), Section("", raw))
    except ConfigError as error:
        raise CniError(error.code, error.msg, f"network {raw['name']}") from error


def _parse_network(raw: Mapping[str, Any]) -> NetConf:
    """What a network's attachments have in common; of an ADD, remembered."""
    shared = {key: value for key, value in raw.items() if key.lower() != _RUNTIME_CONFIG}
    text = json.dumps(shared)  # values alone will not do: to Python 1 is True
    conf = _networks.get(text)
    if conf is None:
        conf = _read(Section("", raw), raw["name"])
        _check_combinations(conf)
        if conf.prev_result is None and conf.valid_attachments is None:
            remember(_networks, text, conf)
    return conf


def _with_runtime_config(conf: NetConf, keys: Section) -> NetConf:
    return replace(
        conf,
        runtime_config=_read_runtime_config(keys.section("runtimeConfig")),
        port_map=portmap.parse(keys),
        features=read_features(keys) if keys.get("type") not in _OTHERS else {},
    )


def parse_minimal(raw: Mapping[str, Any]) -> NetConf:
    """The keys that removal needs, of a configuration with errors elsewhere. Raises code 7 where
    the name is wrong."""
    _check_name(raw.get("name"))
    ipam = raw.get("ipam")
    kept = {"type", "dataDir"}
    texts = (
        {k: v for k, v in ipam.items() if k in kept and isinstance(v, str)}
        if isinstance(ipam, dict)
        else {}
    )
    return NetConf(name=raw["name"], ipam=texts if _is_program(texts.get("type", "")) else {})


def _read(keys: Section, name: str) -> NetConf:
    # What these two say makes no difference: nftables it is, and there are no VLANs.
    keys.choice("ipMasqBackend", ("", "iptables", "nftables"))
    keys.boolean("preserveDefaultVlan")
    bridge, args = keys.string("bridge"), keys.section("args").section("cni")
    return NetConf(
        name=name,
        type=keys.string("type") or "",
        mode=keys.choice("mode", DROP_IN_MODES),
        bridge=DEFAULT_BRIDGE if bridge is None else bridge,
        is_gateway=keys.boolean("isGateway") or False,
        is_default_gateway=keys.boolean("isDefaultGateway") or False,
        force_address=keys.boolean("forceAddress") or False,
        ip_masq=keys.boolean("ipMasq") or False,
        non_masquerade_cidrs=_read_prefixes(keys, "nonMasqueradeCIDRs"),
        mtu=keys.integer("mtu", highest=65535) or 0,
        hairpin_mode=keys.boolean("hairpinMode"),
        promisc_mode=keys.boolean("promiscMode") or False,
        vlan=keys.integer("vlan", highest=4094) or 0,
        vlan_trunk=tuple(keys.items("vlanTrunk")),
        mac_spoof_check=keys.boolean("macspoofchk"),
        source_check=keys.boolean("sourceCheck"),
        allowed_source_prefixes=_read_prefixes(keys, "allowedSourcePrefixes"),
        enable_dad=keys.boolean("enabledad") or False,
        disable_container_interface=keys.boolean("disableContainerInterface") or False,
        port_isolation=keys.boolean("portIsolation") or False,
        ipam=canonical(dict(keys.section("ipam").values), ("type", "dataDir")),
        dns=parse_dns(keys.section("dns")),
        args_mac=_read_mac(args),
        args_ips=args.texts("ips"),
        prev_result=keys.section("prevResult").values or None,
        valid_attachments=_read_valid(keys, name),
    )


def _read_prefixes(keys: Section, key: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(parse_network(text) for text in keys.texts(key))
    except ValueError as error:
        raise CniError(INVALID_CONFIG, f"{key}: {error}") from error


def _read_valid(keys: Section, network: str) -> frozenset[Owner] | None:
    members = list(keys.sections(_VALID))
    if _VALID not in keys.values:
        return None
    keys_of = ((_required(m, "containerID"), _required(m, "ifname")) for m in members)
    return frozenset(Owner(network, *key) for key in keys_of)


def _read_runtime_config(keys: Section) -> RuntimeConfig:
    dns = keys.section("dns")  # its keys are not those of the configuration's `dns`
    return RuntimeConfig(
        mac=_read_mac(keys),
        ips=keys.texts("ips"),
        ip_ranges=tuple(keys.items("ipRanges")),
        dns=Dns(
            nameservers=dns.texts("servers"),
            search=dns.texts("searches"),
            options=dns.texts("options"),
        ),
        aliases=_read_aliases(keys),
    )


def _read_mac(keys: Section) -> str:
    mac = keys.string("mac") or ""
    if mac and not MAC.fullmatch(mac):
        raise keys.fail("mac", mac, "a MAC address like 02:11:22:33:44:55")
    return canonical_mac(mac)


def _read_aliases(keys: Section) -> tuple[str, ...]:
    """CONVENTIONS.md has a list; podman 4 sends lists by network, of all networks of the pod."""
    if not isinstance(keys.get("aliases"), Mapping):
        return keys.texts("aliases")
    by_network = keys.section("aliases")
    return tuple(name for network in by_network.values for name in by_network.texts(network))


def _required(keys: Section, key: str) -> str:
    value = keys.string(key)
    if value is None:
        raise keys.fail(key, None, "a string")
    return value


def _check_name(name: object) -> None:
    if name is None or name == "":
        raise CniError(INVALID_CONFIG, "the network configuration has no name")
    if not isinstance(name, str) or not is_name(name):
        raise CniError(INVALID_CONFIG, f"name {str(name)[:80]!r} is invalid: {NAME_RULE}")


def _is_program(kind: object) -> bool:
    """Whether this can be an IPAM type; it goes into links' aliases too, which blanks divide."""
    if not isinstance(kind, str) or len(kind) > _FILE_NAME_MAX:
        return False
    return kind == "" or NAME.match(kind) is not None


def _check_combinations(conf: NetConf) -> None:
    if "/" in conf.type:
        raise CniError(INVALID_CONFIG, f"type: {conf.type[:80]!r} must be a plain file name")
    kind = conf.ipam.get("type", "")
    if not _is_program(kind):
        raise CniError(INVALID_CONFIG, f"ipam.type: {str(kind)[:80]!r} must be a plain file name")
    fault = link_name_fault(conf.bridge)
    if fault:
        raise CniError(INVALID_CONFIG, f"bridge: {conf.bridge[:80]!r} is invalid: {fault}")
    for key, value in (("vlan", conf.vlan), ("vlanTrunk", list(conf.vlan_trunk))):
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
