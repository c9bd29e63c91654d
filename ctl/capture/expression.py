"""The filter of a capture: `host ADDR`, `port N`, tcp, udp, icmp, arp, with not, and, or; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_network

from daemon.options import Unusable
from kernel.model import IPNetwork
from kernel.packets import Packet

Test = Callable[[Packet], bool]
_PORT_MAX = 65535
_KINDS = {
    "tcp": ("tcp",),
    "udp": ("udp",),
    "icmp": ("icmp", "icmp6"),
    "arp": ("arp request", "arp reply"),
}


def parse_filter(words: Sequence[str]) -> Test:
    """Whether a packet, or one that it carries, is wanted. Raises Unusable.

    `and` binds stronger than `or`; `not` is of the next term alone. No words: all packets.
    """
    parts = " ".join(words).split()
    alternatives = [_parse_all(each) for each in _split(parts, "or")] if parts else [[_any]]
    return lambda packet: any(
        all(term(layer) for term in terms) for layer in packet.layers for terms in alternatives
    )


def _any(_packet: Packet) -> bool:
    return True


def _split(words: Sequence[str], separator: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for word in words:
        if word == separator:
            found.append([])
        else:
            found[-1].append(word)
    return found


def _parse_all(words: Sequence[str]) -> list[Test]:
    return [_parse_term(each) for each in _split(words, "and")]


def _parse_term(words: Sequence[str]) -> Test:
    if words and words[0] == "not":
        inner = _parse_term(words[1:])
        return lambda packet: not inner(packet)
    if len(words) == 1 and words[0] in _KINDS:
        names = _KINDS[words[0]]
        return lambda packet: packet.name in names
    if len(words) == 2 and words[0] == "host":
        return _host(words[1])
    if len(words) == 2 and words[0] == "port":
        return _port(words[1])
    raise Unusable(
        f"{' '.join(words)!r} is no filter: host ADDRESS, port NUMBER, tcp, udp, icmp, arp,"
        " joined with `and`, `or`, each after a `not` if need be"
    )


def _host(text: str) -> Test:
    try:
        prefix: IPNetwork = ip_network(text, strict=False)
    except ValueError as error:
        raise Unusable(f"host {text!r} is no address or prefix") from error
    return lambda packet: packet.source in prefix or packet.to in prefix


def _port(text: str) -> Test:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _PORT_MAX:
        raise Unusable(f"port {text!r} is not from 1 to {_PORT_MAX}")
    number = int(text)
    return lambda packet: packet.ports is not None and number in packet.ports
