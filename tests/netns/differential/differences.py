"""Every deliberate difference between podwire and the reference plugins.

A difference is named, explained, and forgives exactly the lines that match it; a test shows for
each that it does occur, so that no entry outlives its reason.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """Lines that may differ. Patterns match whole names and lines."""

    name: str
    why: str
    lines: str
    """What differs: `- ` begins a line that only the reference has, `+ ` one that podwire has."""
    example: str
    """Case in which the difference shows."""
    cases: str = ".*"
    references: tuple[str, ...] = ("debian", "newest")

    def explains(self, reference: str, case: str, line: str) -> bool:
        return (
            reference in self.references
            and re.fullmatch(self.cases, case) is not None
            and re.fullmatch(self.lines, line) is not None
        )


IPV6 = r"bridge-.*(v6|dual|version-).*|ptp-.*(v6|dual|version-).*"

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "queue-length",
        "The reference makes veth links with a queue of no packets (the host end, in Debian's "
        "release both); podwire leaves the kernel's default of 1000. veth has no queue either way.",
        r"\+ (node link host\d|pod\d link eth0)\.txqlen = 1000",
        example="bridge-gateway",
    ),
    Difference(
        "no-duplicate-address-detection",
        "The allocator guarantees uniqueness: podwire flags its IPv6 addresses `nodad`, so that "
        "ADD need not wait; the reference `ptp` waits for more than a second.",
        r"[-+] (node|pod\d)( after DEL)? address (cni0|host\d|eth0) \{.*\"family\": \"inet6\".*",
        example="ptp-v6",
        cases=IPV6,
    ),
    Difference(
        "accept-dad",
        "podwire turns detection off on each link that it makes, for link-local addresses delay "
        "first packets too; the reference `bridge` does for the pod's link, `ptp` for none.",
        r"[-+] (node|pod\d)( after DEL)? sysctl ipv6/(cni0|pods0|host\d|eth0)/accept_dad = [01]",
        example="bridge-gateway",
    ),
    Difference(
        "bridge-mac",
        "podwire gives a bridge its MAC for good. The reference does so only with an address on "
        "the bridge; without, the MAC changes with the ports.",
        r"[-+] node after DEL link (cni0|pods0)\.address = .*",
        example="bridge-plain",
        cases="bridge-.*",
    ),
    Difference(
        "arp-notify",
        "podwire announces the pod's addresses on every network, the reference on those of its "
        "`bridge` that have addresses.",
        r"- pod\d sysctl ipv4/eth0/arp_notify = 0|\+ pod\d sysctl ipv4/eth0/arp_notify = 1",
        example="ptp-plain",
        cases="ptp-.*|bridge-(layer-2|no-container-interface)",
    ),
    Difference(
        "no-prefix-route",
        "Of a routed pair, podwire adds the address with `noprefixroute`; the reference adds it "
        "without, then removes the route that the kernel made. The routes are the same.",
        r"[-+] pod\d address eth0 .*",
        example="ptp-plain",
        cases="ptp-.*",
    ),
    Difference(
        "route-protocol",
        "podwire marks its routes on the node with a protocol number of its own, to know them.",
        r"[-+] node routes \{\"dev\": \"host\d\".*",
        example="ptp-plain",
        cases="ptp-.*",
    ),
    Difference(
        "mtu-in-result",
        "The result of version 1.1.0 has room for each interface's MTU; the reference leaves it.",
        r"\+ result\[\d\]\.interfaces\[\d\]\.mtu = 1500",
        example="ptp-version-1.1.0",
        cases="bridge-(version-1\\.1\\.0|route-metrics)|ptp-version-1\\.1\\.0",
    ),
    Difference(
        "check-without-ipam",
        "The reference asks for an IPAM plugin even in the CHECK of a network without one.",
        r"- CHECK pod\d: no plugin name provided|\+ CHECK pod\d: ok",
        example="bridge-layer-2",
        cases="bridge-(layer-2|no-container-interface)",
    ),
    Difference(
        "route-metrics",
        "podwire sets the MTU and the MSS that version 1.1.0 gives a route; the reference puts "
        "them in the result only, and its CHECK looks in the main table alone.",
        r"[-+] pod\d routes .*|- CHECK pod\d: Expected Route .* not found in .*|\+ CHECK pod\d: ok",
        example="bridge-route-metrics",
        cases="bridge-route-metrics",
    ),
    Difference(
        "check-of-routes",
        "The old reference's CHECK does not know that a route without gateway goes through the "
        "address's.",
        r"- CHECK pod\d: Expected Route .* not found in routing table|\+ CHECK pod\d: ok",
        example="bridge-routes",
        cases="bridge-routes|ptp-routes",
        references=("debian",),
    ),
    Difference(
        "gateways-of-all-ranges",
        "The bridge has the gateways of all ranges of the configuration. The reference gives it "
        "the last pod's: without `forceAddress` the ADD fails, with it earlier pods are cut off.",
        r"\+ node( after DEL)? (address cni0|routes) .*\"10\.20\.1\..*",
        example="bridge-force-address",
        cases="bridge-force-address",
    ),
    Difference(
        "keep-address-on-down",
        "podwire, like the new reference, keeps IPv6 addresses when the pod's link goes down.",
        r"[-+] pod\d sysctl ipv6/eth0/keep_addr_on_down = [01]",
        example="bridge-v6",
        cases=IPV6,
        references=("debian",),
    ),
)


def differing(reference: set[str], podwire: set[str]) -> list[str]:
    """Lines that one has and the other has not."""
    lines = [f"- {line}" for line in sorted(reference - podwire)]
    return lines + [f"+ {line}" for line in sorted(podwire - reference)]


def unexplained(
    reference: str, case: str, lines: list[str], known: Iterable[Difference]
) -> list[str]:
    """The lines that differ without a reason. case: its name."""
    found = list(known)
    return [
        line
        for line in lines
        if not any(difference.explains(reference, case, line) for difference in found)
    ]
