"""How the reference plugins name an attachment's rules and devices."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.leftovers import owner_of_chain, owner_of_comment, traces_of
from ipam.transaction import Owner

OWNER = Owner("pods", "a" * 64, "eth0")
names = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,80}", fullmatch=True)
owners = st.builds(Owner, names, names, st.just("eth0"))


@given(owners)
def test_the_comments_lead_back_to_the_attachment(owner: Owner) -> None:
    traces = traces_of(owner)
    assert all(len(chain) == 28 for chain in traces.chains)  # xtables' bound
    masquerade, mapped, _old = traces.chains.items()
    assert owner_of_chain(masquerade[1], masquerade[0]) == owner
    assert owner_of_chain(mapped[1], mapped[0]) == owner
    net, container, ifname = owner.network, owner.container_id, owner.ifname
    comment = f"{traces.masquerade}, net: {net}, if: {ifname}, id: {container}"
    assert owner_of_comment(comment) == owner


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "anything",
        f"{'0' * 16}-{'0' * 16}, net: pods, if: eth0, id: {'a' * 64}",
        f"{traces_of(OWNER).masquerade}, net: pods, if: eth0, id: {'b' * 64}",
        f"{traces_of(OWNER).masquerade}, net: pods, if: eth0, id: {'a' * 40}",  # cut off
    ],
)
def test_a_comment_counts_with_its_digest_alone(comment: str) -> None:
    assert owner_of_comment(comment) is None


def test_a_chain_counts_with_its_comment_alone() -> None:
    chain = next(iter(traces_of(OWNER).chains))
    assert owner_of_chain(f'name: "pod" id: "s{"a" * 63}"', chain) is None
    assert owner_of_chain(f'name: "pods" id: "{"b" * 64}"', chain) is None
    assert owner_of_chain(f'name: "pods" id: "{"a" * 64}"', "CNI-HOSTPORT-MASQ") is None
    assert owner_of_chain("", chain) is None


def test_the_digests_are_of_sha512() -> None:
    digest = hashlib.sha512(b"pods" + b"a" * 64).hexdigest()
    assert list(traces_of(OWNER).chains) == [
        f"CNI-{digest[:24]}",
        f"CNI-DN-{digest[:21]}",
        f"CNI-SN-{digest[:21]}",
    ]


def test_a_long_comment_of_portmap_is_cut_as_it_does() -> None:
    owner = Owner("n" * 100, "i" * 200, "eth0")
    comment = list(traces_of(owner).chains.values())[1]
    assert len(comment) == 256
    assert comment.endswith("i...")
