"""Ingress policies: a part of the table `inet podwire`, there while an attachment has one.

Packet path: forwarded packets, before the filters of others. A packet from one link that has a
policy to another one that has one is dropped. By the link that it came from a packet goes back only
where no policy there says `isolated`; between ports of a bridge packets pass this hook only where
bridge-nf-call-iptables is on.

All attachments of a link need the same elements, so an element goes with the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernel.model import Element
from kernel.nftables.table import Chain, Set, Table, link_key

OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
POLICIES = (OPEN, SAME_BRIDGE, ISOLATED)

_LINKS = Set("inet", "policy_links", ("ifname",))
_SAME = Set("inet", "same_policy_link", ("ifname", "ifname"))
_ISOLATED = Set("inet", "isolated_link", ("ifname", "ifname"))
SETS = (_LINKS, _SAME, _ISOLATED)
_NAMES = frozenset(a_set.name for a_set in SETS)

PART = Table(
    "inet",
    sets=SETS,
    chains=(
        Chain(
            "ingress_policies",
            "type filter hook forward priority filter",
            (
                "iifname . oifname @isolated_link counter drop",
                "iifname . oifname @same_policy_link accept",
                "iifname @policy_links oifname @policy_links counter drop",
            ),
        ),
    ),
)


def policy_elements(link: str, policy: str) -> tuple[Element, ...]:
    """The elements of a link's policy: a bridge's, or that of a pair's end on the node."""
    if policy == OPEN:
        return ()
    name = link_key(link)
    itself = _ISOLATED if policy == ISOLATED else _SAME
    return _LINKS.element(name), itself.element(name * 2)


def shared(elements: Iterable[Element]) -> list[Element]:
    """Those of the elements that other attachments may need, too."""
    return [element for element in elements if element.set_name in _NAMES]
