"""Names and marks that podwire derives for an attachment."""

import string
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugin.names import Mark, derive_mac, host_link_name, parse_alias, render_alias
from cni_plugin.request import NAME_MAX
from ipam.transaction import Owner
from kernel.model import IPInterface
from tests.unit.kernel import strategies as nouns

LONGEST = 254  # IFALIASZ less the NUL and one, as the kernel takes it
WORD = string.ascii_letters + string.digits + "_.-"


def names_up_to(length: int) -> st.SearchStrategy[str]:
    """Names as request and configuration let them pass, often of the full length."""
    first = st.sampled_from(string.ascii_letters + string.digits)
    rest = st.text(WORD, max_size=length - 1)
    long = st.text(WORD, min_size=3).map(lambda seed: (seed * length)[: length - 1])
    return st.builds(str.__add__, first, rest | long)


interfaces = st.text(WORD + "=,;'\"@#+", min_size=1, max_size=15).filter(lambda n: n not in ("lo",))
pods = st.just("") | st.builds("{}/{}".format, names_up_to(63), names_up_to(253))


def marks(name: int, container: int, addresses: int) -> st.SearchStrategy[Mark]:
    return st.builds(
        Mark,
        st.builds(Owner, names_up_to(name), names_up_to(container), interfaces),
        st.lists(nouns.ip_interfaces, max_size=addresses).map(tuple),
        st.booleans(),
        st.just("") | names_up_to(15),
        pods,
        st.booleans(),
    ).map(lambda mark: replace(mark, hairpin=mark.hairpin or mark.masquerade))


usual = marks(name=40, container=64, addresses=2)
"""What runtimes send: container IDs of 64 characters, two addresses, names within reason."""


def is_told(found: Mark | None, mark: Mark) -> bool:
    """Whether everything but the end of the pod's name came back."""
    return (
        found is not None
        and replace(found, pod="") == replace(mark, pod="")
        and mark.pod.startswith(found.pod)
    )


@settings(max_examples=200)
@given(usual)
def test_an_alias_tells_the_attachment(mark: Mark) -> None:
    alias = render_alias(mark)
    assert len(alias.encode()) <= LONGEST
    assert is_told(parse_alias(alias), mark)
    if len(alias) < LONGEST:
        assert parse_alias(alias) == mark


@settings(max_examples=200)
@given(marks(name=NAME_MAX, container=NAME_MAX, addresses=12))
def test_an_alias_tells_the_truth_or_nothing(mark: Mark) -> None:
    """A name cut off would be another attachment's, an address cut off another subnet's."""
    alias = render_alias(mark)
    assert len(alias.encode()) <= LONGEST
    found = parse_alias(alias)
    assert found is None or is_told(found, mark)


@given(st.none() | st.text(max_size=30) | st.text("podwire netidf=/. 10", max_size=60))
def test_another_programs_alias_is_no_mark(alias: str | None) -> None:
    found = parse_alias(alias)
    assert found is None or (alias or "").startswith("podwire ")


@given(usual, st.data())
def test_an_alias_that_lost_its_end_is_no_other_attachments(
    mark: Mark, data: st.DataObject
) -> None:
    """Whatever else is lost, who is meant is told whole or not at all."""
    alias = render_alias(mark)
    found = parse_alias(alias[: data.draw(st.integers(0, len(alias)))])
    if found is not None:
        assert found.owner == mark.owner


KEYS = st.tuples(names_up_to(NAME_MAX), names_up_to(NAME_MAX), interfaces)


def cuts(text: str) -> Iterator[tuple[str, str]]:
    return ((text[:n], text[n:]) for n in range(1, len(text)))


@given(KEYS, KEYS)
def test_link_names_differ_as_attachments_do(
    one: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    name = host_link_name(Owner(*one))
    assert len(name) == 13
    assert name.startswith("pw")
    assert set(name[2:]) <= set("0123456789abcdef")
    assert (name == host_link_name(Owner(*two))) == (one == two)


@given(names_up_to(12), interfaces)
def test_the_border_between_two_names_counts(text: str, ifname: str) -> None:
    names = [host_link_name(Owner(a, b, ifname)) for a, b in cuts(text)]
    assert len(set(names)) == len(names)


@given(st.text(max_size=8), st.lists(st.text(max_size=20), max_size=3))
def test_macs_are_one_interfaces_and_locally_administered(side: str, key: list[str]) -> None:
    mac = derive_mac(side, *key)
    raw = bytes.fromhex(mac.replace(":", ""))
    assert len(raw) == 6
    assert mac == raw.hex(":")
    assert raw[0] & 0b11 == 0b10
    assert derive_mac(side, *key) == mac
    assert derive_mac(side, *key, "more") != mac


@given(st.sampled_from(("node", "pod")), names_up_to(20), nouns.ip_interfaces, nouns.ip_interfaces)
def test_addresses_have_macs_of_their_own(
    side: str, network: str, one: IPInterface, two: IPInterface
) -> None:
    same = derive_mac(side, network, str(one)) == derive_mac(side, network, str(two))
    assert same == (one == two)
