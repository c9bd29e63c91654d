"""The table of port mappings: keys of `portmap`, and what stands in front of it in the chain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Mappings = tuple[Mapping[str, Any], ...]

NODE4, NODE6 = "192.0.2.11", "2001:db8:ffff::b"
"""The node's addresses on its uplink: each world's underlay has one node."""
SECOND4, SECOND6 = "198.51.100.7", "2001:db8:77::7"
"""More addresses of the node, on its loopback link."""
EVERY4 = "0.0.0.0"  # noqa: S104
V4, V6 = "10.20.0.0/24", "2001:db8:20::/64"


def tcp(host: int, pod: int, **keys: Any) -> dict[str, Any]:
    return {"hostPort": host, "containerPort": pod, "protocol": "tcp", **keys}


def udp(host: int, pod: int, **keys: Any) -> dict[str, Any]:
    return tcp(host, pod, **keys) | {"protocol": "udp"}


BOTH = (tcp(8080, 80), udp(8053, 53))


@dataclass(frozen=True)
class PortCase:
    """A chain of `main` and `portmap`. mappings: those of each pod that has any."""

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    mappings: tuple[Mappings, ...] = (BOTH,)
    main: str = "bridge"
    main_keys: Mapping[str, Any] = field(default_factory=dict)
    subnets: tuple[str, ...] = (V4, V6)
    version: str = "1.0.0"
    prepare: tuple[tuple[str, ...], ...] = ()
    """Commands on the node, before anything is attached."""
    debian: bool = False
    """Whether Debian's release (1.1.1), which has not all of the keys, is compared, too."""

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the reference releases to compare with."""
        return ("debian", "newest") if self.debian else ("newest",)

    def conf(self, plugin: str) -> dict[str, Any]:
        """The configuration of one plugin of the chain."""
        conf: dict[str, Any] = {"cniVersion": self.version, "name": "net", "type": plugin}
        if plugin == "portmap":
            return {**conf, **self.keys}
        routes = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in self.subnets]
        ranges = [[{"subnet": subnet}] for subnet in self.subnets]
        conf["ipam"] = {"type": "host-local", "ranges": ranges, "routes": routes}
        bridge = {"isGateway": True, "hairpinMode": True} if plugin == "bridge" else {}
        return {**conf, **bridge, **self.main_keys}


NFT = {"backend": "nftables"}
MARK_CHAIN = tuple(
    (tool, "-t", "nat", *words.split())
    for tool in ("iptables", "ip6tables")
    for words in (
        "-N OTHERS-MARK",
        "-A OTHERS-MARK -j MARK --or-mark 0x4000",
        "-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE",
    )
)

PAST_THE_RULES = tuple(
    ("sysctl", "-w", f"net.bridge.bridge-nf-call-{tool}=0") for tool in ("iptables", "ip6tables")
)
"""What a bridge forwards does not pass the rules for IP."""

PORT_CASES = {
    case.name: case
    for case in (
        PortCase("plain", debian=True),
        PortCase("ptp", main="ptp", debian=True),
        PortCase("bridged-past-the-rules", prepare=PAST_THE_RULES),
        PortCase("without-hairpin", main_keys={"hairpinMode": False}),
        PortCase("ip-masq", main_keys={"ipMasq": True}),
        PortCase("ptp-ip-masq", main="ptp", main_keys={"ipMasq": True}),
        PortCase("v4", subnets=(V4,)),
        PortCase("v6", subnets=(V6,)),
        PortCase("snat-off", {"snat": False}),
        PortCase("ptp-snat-off", {"snat": False}, main="ptp"),
        PortCase("masq-all", {"masqAll": True}),
        PortCase("ptp-masq-all", {"masqAll": True}, main="ptp"),
        PortCase("masq-all-without-snat", {"masqAll": True, "snat": False}),
        PortCase("mark-bit", {"markMasqBit": 14}),
        PortCase("mark-chain", {"externalSetMarkChain": "OTHERS-MARK"}, prepare=MARK_CHAIN),
        PortCase("iptables", {"backend": "iptables"}),
        PortCase("nftables", NFT),
        PortCase("nftables-ptp", NFT, main="ptp"),
        PortCase("nftables-snat-off", {**NFT, "snat": False}),
        PortCase("nftables-masq-all", {**NFT, "masqAll": True}),
        PortCase(
            "host-ip", mappings=((tcp(8080, 80, hostIP=SECOND4), udp(8053, 53)),), debian=True
        ),
        PortCase("host-ip-v6", mappings=((tcp(8080, 80, hostIP=SECOND6), udp(8053, 53)),)),
        PortCase("every-v4", mappings=((tcp(8080, 80, hostIP=EVERY4),),)),
        PortCase("every-v6", mappings=((tcp(8080, 80, hostIP="::"),),)),
        PortCase("on-loopback", mappings=((tcp(8080, 80, hostIP="127.0.0.1"),),)),
        PortCase(
            "nftables-host-ip",
            NFT,
            mappings=((tcp(8080, 80, hostIP=NODE4), udp(8053, 53, hostIP=NODE6)),),
        ),
        PortCase("two-protocols", mappings=((tcp(8053, 53), udp(8053, 53)),)),
        PortCase("protocol-in-capitals", mappings=((tcp(8080, 80, protocol="TCP"),),)),
        PortCase("two-pods", mappings=((tcp(8080, 80),), (udp(8080, 80), tcp(8081, 80)))),
        PortCase(
            "two-pods-of-one-port",
            mappings=((tcp(8080, 80, hostIP=NODE4),), (tcp(8080, 80, hostIP=SECOND4),)),
        ),
        PortCase("many", mappings=(tuple(tcp(8000 + n, 8000 + n) for n in range(81)),)),
        PortCase("sctp", mappings=((tcp(8080, 80), tcp(132, 132, protocol="sctp")),)),
        PortCase("none", mappings=((),)),
        *(PortCase(f"version-{v}", version=v) for v in ("0.3.1", "0.4.0")),
        PortCase("version-1.1.0", version="1.1.0"),
    )
}


@dataclass(frozen=True)
class OddCase:
    """A configuration of `portmap` that is wrong, or that podwire treats otherwise.

    keys: in the place of those of `plain`. code: of podwire's error; 0: success. better: why it is
    not the reference's answer.
    """

    name: str
    keys: Mapping[str, Any]
    code: int = 7
    better: str = ""


def mapped(**keys: Any) -> dict[str, Any]:
    """runtimeConfig with one mapping; None leaves a key out."""
    entry = {key: value for key, value in (tcp(8080, 80) | keys).items() if value is not None}
    return {"runtimeConfig": {"portMappings": [entry]}}


ODD_CASES = (
    OddCase("no-previous-result", {"prevResult": None}),
    OddCase("host-port-0", mapped(hostPort=0)),
    OddCase("host-port-negative", mapped(hostPort=-1)),
    OddCase("host-port-too-high", mapped(hostPort=65536)),
    OddCase("host-port-missing", mapped(hostPort=None)),
    OddCase("host-port-text", mapped(hostPort="8080")),
    OddCase("pod-port-0", mapped(containerPort=0)),
    OddCase("pod-port-too-high", mapped(containerPort=65536)),
    OddCase("pod-port-missing", mapped(containerPort=None)),
    OddCase("protocol-missing", mapped(protocol=None), 0, "without a protocol it is TCP"),
    OddCase("protocol-unknown", mapped(protocol="carrier-pigeon")),
    OddCase("protocol-without-ports", mapped(protocol="icmp")),
    OddCase("host-ip-no-address", mapped(hostIP="node")),
    OddCase("host-ip-mapped", mapped(hostIP=f"::ffff:{NODE4}"), 0),
    OddCase("mark-bit-32", {"markMasqBit": 32}),
    OddCase("mark-bit-negative", {"markMasqBit": -1}),
    OddCase("mark-bit-and-chain", {"markMasqBit": 1, "externalSetMarkChain": "OTHERS-MARK"}),
    OddCase("mark-chain-missing", {"externalSetMarkChain": "OTHERS-MARK"}, 0, "it is not needed"),
    OddCase("backend-unknown", {"backend": "ebtables"}),
    OddCase("backend-and-chain", {**NFT, "externalSetMarkChain": "OTHERS-MARK"}),
    OddCase(
        "conditions",
        {"conditionsV4": ["!", "-d", NODE4], "conditionsV6": ["!", "-d", NODE6]},
        2,
        "a map has no conditions, and ignoring them would open what they keep closed",
    ),
    OddCase("conditions-empty", {"conditionsV4": [], "conditionsV6": []}, 0),
    OddCase("conditions-of-iptables", {**NFT, "conditionsV4": ["!", "-d", NODE4]}, 2),
    OddCase("snat-text", {"snat": "yes"}),
    OddCase("mappings-no-list", {"runtimeConfig": {"portMappings": {"hostPort": 1}}}),
    OddCase(
        "one-port-of-two",
        {"runtimeConfig": {"portMappings": [tcp(8080, 80), tcp(8080, 81)]}},
        better="the reference serves the first, and says nothing",
    ),
    OddCase(
        "one-port-of-two-by-address",
        {"runtimeConfig": {"portMappings": [tcp(8080, 80), tcp(8080, 81, hostIP=EVERY4)]}},
        better="likewise",
    ),
)
