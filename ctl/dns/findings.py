"""What the lookups show: what is wrong, and what to do; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from ctl.dns.lookup import Burst, Lookup, Sent
from ctl.dns.resolv_conf import ResolvConf

_LOST_SHARE = 0.02
"""Of a burst, what may be lost without a finding."""
_STUB = ip_address("127.0.0.53")


def find_waste(lookup: Lookup, conf: ResolvConf) -> Iterator[str]:
    """Queries in vain, and the setting that ends them."""
    waste = [sent for sent in lookup.waste if sent.seconds is not None]
    if not waste:
        return
    count = f"{len(waste)} of {len(lookup.sent)} queries were in vain"
    if lookup.answered != lookup.name.rstrip("."):
        yield f"{count}: give the name as {lookup.answered}. (with the dot at its end)"
        return
    dots = lookup.name.rstrip(".").count(".")
    yield (
        f"{count}: the search list is tried first, for {lookup.name} has fewer than {conf.ndots}"
        f' dots (ndots). Set dnsConfig.options [{{name: ndots, value: "{max(1, dots)}"}}] in the'
        f" pod's spec, or write {lookup.answered}. with the dot at its end"
    )


def find_faults(
    lookup: Lookup, conf: ResolvConf, flood: Burst | None, pod: str = "POD"
) -> Iterator[str]:
    """What failed, and what to do. pod: as commands take it."""
    if not lookup.answered and not lookup.lost and any(s.seconds is not None for s in lookup.sent):
        yield f"{lookup.name} has no address under any of the names that were tried"
    yield from _unreachable(lookup.sent)
    lost = lookup.lost
    if lost:
        servers = ", ".join(sorted({sent.server for sent in lost}))
        all_lost = len(lost) == len(lookup.sent)
        server = f"[{lost[0].server}]" if ":" in lost[0].server else lost[0].server
        hint = (
            f"`podwirectl trace {pod} {server}:53/udp` shows where they end, `podwirectl doctor`"
            " what is in their way"
        )
        how = f"no query of {len(lost)} had an answer" if all_lost else (
            f"{len(lost)} of {len(lookup.sent)} queries had no answer within {conf.timeout:g}s"
        )  # fmt: skip
        yield f"{how} from {servers}: {hint}"
    if flood and flood.answered < flood.sent * (1 - _LOST_SHARE):
        yield (
            f"of {flood.sent} queries within a second {flood.answered} had an answer: something"
            " limits DNS (clouds allow about 1,000 packets a second for each interface), or the"
            " server is overloaded: run a DNS cache on each node, and avoid queries in vain"
        )


def _unreachable(sent: Sequence[Sent]) -> Iterator[str]:
    for server, result in sorted({(s.server, s.result) for s in sent if _has_failed(s)}):
        text = f"{server} cannot be asked: {result}"
        if ip_address(server) == _STUB:
            text += (
                "; it is the node's systemd-resolved, which no pod reaches: kubelet's resolvConf"
                " must be /run/systemd/resolve/resolv.conf"
            )
        elif result == "refused":
            text += ": no DNS server listens there, or a firewall rejects it"
        yield text


def _has_failed(sent: Sent) -> bool:
    return sent.seconds is None and not sent.is_lost
