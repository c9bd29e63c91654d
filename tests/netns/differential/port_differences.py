"""Every deliberate difference between podwire's `portmap` and the reference's."""

from tests.netns.differential.differences import Difference

BEHIND_REFERENCE_DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "source-of-other-pods",
        "The reference masquerades the connections of all pods of the subnet; podwire those whose "
        "answer would not come back by the node.",
        r"[-+] attached: from pod\d to .*: the pod sees (the gateway|pod\d)",
        example="plain",
    ),
    Difference(
        "check-of-two-families",
        "Debian's release looks for the rules of each family in both.",
        r"- CHECK: error|\+ CHECK: success",
        example="plain",
        references=("debian",),
    ),
    Difference(
        "masquerade-of-all-by-nftables",
        "With `backend` nftables the newest release does not masquerade what `masqAll` asks for "
        "(mended upstream since).",
        r"[-+] attached: from (node|outside) to .*: the pod sees .*",
        example="nftables-masq-all",
        cases="nftables-masq-all",
    ),
)
PORT_DIFFERENCES: tuple[Difference, ...] = (
    *BEHIND_REFERENCE_DIFFERENCES,
    Difference(
        "hairpin-of-podwire",
        "podwire's `bridge` and `ptp` let a pod reach itself by an address that leads back to it.",
        r"- attached: from pod0 to .*: no answer"
        r"|\+ attached: from pod0 to .*: the pod sees the gateway",
        example="snat-off",
        cases=".*snat.*",
    ),
)
