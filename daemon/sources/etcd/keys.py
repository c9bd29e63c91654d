"""Where podwire's keys are in etcd, and what they must look like.

    PREFIX/v1/nodes/NAME                        a node's record, on that node's lease
    PREFIX/v1/subnets/ipv4/10.244.3.0-24        the name of the node that holds the subnet, likewise
    PREFIX/v1/subnets/ipv6/fd00:10:244:3::-64
    PREFIX/v1/lengths/ipv4                      the prefix length of all subnets of that family

A subnet has one spelling only: what is written otherwise is not podwire's, and is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from daemon.model import parse_node_name, parse_pod_cidr
from kernel.model import IPNetwork

FAMILIES = {4: "ipv4", 6: "ipv6"}
_VERSIONS = {name: version for version, name in FAMILIES.items()}
_KEY_MAX = 1024


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The key of a node's record."""

    name: str


@dataclass(frozen=True, slots=True)
class SubnetKey:
    """The key of a subnet, which exists as long as somebody holds it."""

    subnet: IPNetwork


@dataclass(frozen=True, slots=True)
class LengthKey:
    """The key of the prefix length that all nodes agree on."""

    version: int


Place = NodeKey | SubnetKey | LengthKey


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster; prefix: what they all begin with, without a / at its end."""

    prefix: str = "/podwire"

    @property
    def root(self) -> bytes:
        """What all keys of this layout begin with."""
        return f"{self.prefix}/v1/".encode()

    @property
    def end(self) -> bytes:
        """The first key behind them, as etcd takes the end of a range (rpc.proto, range_end)."""
        return self.root[:-1] + bytes([self.root[-1] + 1])

    def write(self, place: Place) -> bytes:
        """The key of a place."""
        match place:
            case NodeKey(name):
                tail = f"nodes/{name}"
            case SubnetKey(subnet):
                text = f"{subnet.network_address}-{subnet.prefixlen}"
                tail = f"subnets/{FAMILIES[subnet.version]}/{text}"
            case LengthKey(version):
                tail = f"lengths/{FAMILIES[version]}"
        return self.root + tail.encode()

    def read(self, key: bytes) -> Place:
        """The place of a key. Raises ValueError where podwire would not have written it."""
        if not key.startswith(self.root) or len(key) > _KEY_MAX:
            raise ValueError(
                f"must begin with {self.prefix}/v1/, and have at most {_KEY_MAX} bytes"
            )
        try:
            kind, _, rest = key.removeprefix(self.root).decode("ascii").partition("/")
        except UnicodeDecodeError as error:
            raise ValueError("must be ASCII") from error
        place = _read_place(kind, rest)
        if self.write(place) != key:
            raise ValueError(f"must be written {self.write(place).decode()}")
        return place


def _read_place(kind: str, rest: str) -> Place:
    match kind:
        case "nodes":
            return NodeKey(parse_node_name(rest))
        case "subnets":
            _, _, text = rest.partition("/")
            return SubnetKey(parse_pod_cidr(text.replace("-", "/", 1)))
        case "lengths" if rest in _VERSIONS:
            return LengthKey(_VERSIONS[rest])
    raise ValueError("is none of nodes/NAME, subnets/FAMILY/SUBNET, lengths/FAMILY")
