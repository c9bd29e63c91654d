"""Port mappings: the capability `portMappings`, with the keys of the reference `portmap`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_plugin.errors import UNSUPPORTED_FIELD
from ipam.errors import ConfigError
from ipam.json_section import Section, show
from ipam.ranges import IPAddress

if TYPE_CHECKING:  # the IPAM plugin, which reads configurations, needs nothing of the kernel
    from cni_plugin.host import Call
    from cni_plugin.result import Result
    from kernel.model import Element, Piece, Sysctl
    from kernel.netlink.socket import Netlink

_PROTOCOLS = ("tcp", "udp", "sctp")
_HIGHEST = 65535


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the node that leads to one of the pod's. protocol: tcp, udp or sctp.

    host_ip: the node's address; of a family, the unspecified one means all; None: of both.
    """

    protocol: str
    host_port: int
    pod_port: int
    host_ip: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class PortMapConf:
    """Mappings, and what connections are masqueraded (keys `snat`, `masqAll`)."""

    mappings: tuple[PortMapping, ...] = ()
    snat: bool = True
    masquerade_all: bool = False


def parse(conf: Section) -> PortMapConf:
    """The port mappings of a configuration. Raises ConfigError."""
    snat = conf.boolean("snat")
    return PortMapConf(
        tuple(_mappings(conf.section("runtimeConfig"))),
        True if snat is None else snat,
        conf.boolean("masqAll") or False,
    )


def _mappings(runtime: Section) -> Iterator[PortMapping]:
    targets: dict[tuple[object, ...], int] = {}
    for entry in runtime.sections("portMappings"):
        mapping = _mapping(entry)
        for place in _places(mapping):
            other = targets.setdefault(place, mapping.pod_port)
            if other != mapping.pod_port:
                msg = f"{entry.name('hostPort')}: {mapping.host_port} leads to {other} already"
                raise ConfigError(f"{msg}, not to {mapping.pod_port} as well")
        yield mapping


def _places(mapping: PortMapping) -> Iterator[tuple[object, ...]]:
    """What no other mapping may have: of each family, and of one address or of all (None)."""
    host = mapping.host_ip
    node = None if host is None or host.is_unspecified else host
    for version in (4, 6) if host is None else (host.version,):
        yield mapping.protocol, mapping.host_port, version, node


def _mapping(entry: Section) -> PortMapping:
    protocol = (entry.text("protocol") or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise entry.fail("protocol", protocol, "one of " + ", ".join(_PROTOCOLS))
    return PortMapping(
        protocol,
        _port(entry, "hostPort"),
        _port(entry, "containerPort"),
        entry.address("hostIP"),
    )


def _port(entry: Section, key: str) -> int:
    port = entry.integer(key, 1, _HIGHEST)
    if port is None:
        raise entry.fail(key, None, f"a port between 1 and {_HIGHEST}")
    return port


def plan_port_mappings(
    conf: PortMapConf, link: str, addresses: Iterable[IPAddress]
) -> tuple[tuple[Element, ...], tuple[Sysctl, ...]]:
    """What an attachment has for its mapped ports: elements and settings of the node.

    link: the node's link that leads to the pod. Of the pod's addresses the first of each family is
    mapped to; a mapping of a family that the pod lacks has no effect.
    """
    from kernel.model import Sysctl
    from kernel.nftables.port_mappings import mapping_element, return_elements, route_localnet

    targets = {address.version: address for address in reversed(tuple(addresses))}
    elements: list[Element] = []
    for mapping in conf.mappings:
        host = mapping.host_ip
        for pod in targets.values():
            if host is None or host.version == pod.version:
                node = None if host is None or host.is_unspecified else host
                ports = mapping.host_port, mapping.pod_port
                elements.append(mapping_element(mapping.protocol, node, ports[0], pod, ports[1]))
    if not elements or not conf.snat:
        return tuple(dict.fromkeys(elements)), ()
    for pod in targets.values():
        elements += return_elements(link, pod, always=conf.masquerade_all)
    settings = (Sysctl(route_localnet(link), "1"),) if 4 in targets else ()
    return tuple(dict.fromkeys(elements)), settings


def _check_keys(conf: Section) -> None:
    """Refuse what the reference refuses, and conditions: a map has none. Raises ConfigError.

    What the other keys ask for is the same in podwire's rules.
    """
    backend = conf.choice("backend", ("iptables", "nftables"))
    chain = conf.string("externalSetMarkChain")
    if conf.integer("markMasqBit", highest=31) is not None and chain is not None:
        raise ConfigError("markMasqBit and externalSetMarkChain exclude each other")
    if chain is not None and backend == "nftables":
        raise conf.fail("externalSetMarkChain", chain, "absent where backend is nftables")
    for key in ("conditionsV4", "conditionsV6"):
        if words := " ".join(conf.texts(key)):
            why = "name the node's address in hostIP instead"
            msg = f"{key}: {show(words)} is not supported"
            raise ConfigError(msg, code=UNSUPPORTED_FIELD, details=why)


def plan_piece(call: Call, nl: Netlink, previous: Result) -> Piece | None:
    """The mappings as a piece of a chain's attachment."""
    from cni_plugin.chained import link_to_pod
    from kernel.model import Piece, Space

    _check_keys(Section("", call.parsed.raw))
    addresses = previous.addresses_of_pod(call.request.ifname)
    if not call.conf.port_map.mappings or not addresses:
        return None
    link = link_to_pod(nl, addresses)
    elements, settings = plan_port_mappings(call.conf.port_map, link, (a.ip for a in addresses))
    return Piece("portmap", Space(sysctls=settings), elements=elements) if elements else None
