"""Records of attachments, through text and back."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugin.attachment import (
    Record,
    cleanup_record_of,
    dump_record,
    load_cleanup_record,
    load_record,
)
from kernel.model import Element, Link, Piece, Plan, Space, Sysctl
from tests.unit.kernel import strategies as nouns

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
records = st.builds(
    Record,
    plan=nouns.plans,
    netns=texts,
    pod=texts,
    ipam=texts,
    aliases=st.lists(texts, max_size=3).map(tuple),
    dns=st.none() | st.dictionaries(texts, json_values, max_size=3),
    complete=st.booleans(),
    foreign=texts,
    pieces=st.lists(nouns.pieces, max_size=1).map(tuple),
)


@settings(max_examples=80)
@given(records)
def test_any_record_comes_back_as_it_was(record: Record) -> None:
    text = dump_record(record)
    found = load_record(text)
    assert found == record
    assert dump_record(found) == text


@settings(max_examples=20)
@given(records)
def test_a_record_is_one_line_of_plain_text(record: Record) -> None:
    """sqlite3 refuses text that cannot be encoded."""
    text = dump_record(record)
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["schema"] == 1


@settings(max_examples=20)
@given(records, st.none() | st.integers().filter(lambda n: n != 1) | texts)
def test_another_versions_record_is_refused(record: Record, schema: Any) -> None:
    raw = {**json.loads(dump_record(record)), "schema": schema}
    with pytest.raises(ValueError, match="another version of podwire"):
        load_record(json.dumps(raw))


@pytest.mark.parametrize("text", ["1", "[]", "null", '"x"', "{}"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="another version"):
        load_record(text)


@settings(max_examples=40)
@given(records, st.data())
def test_a_damaged_record_is_refused(record: Record, data: st.DataObject) -> None:
    """Whoever loads it catches these three (`removal`), and goes by the link's name instead."""
    text = dump_record(record)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(ValueError, match=r".*"):
        load_record(cut)
    raw = json.loads(text)
    del raw[data.draw(st.sampled_from(("plan", "schema")))]
    with pytest.raises((ValueError, TypeError, KeyError)):
        load_record(json.dumps(raw))


elements = nouns.tuples_of(nouns.elements)
shares = st.builds(Space, nouns.tuples_of(st.builds(Link, nouns.names)))


@settings(max_examples=40)
@given(
    elements,
    st.lists(st.builds(Piece, nouns.names, node=shares, elements=elements), max_size=3),
)
def test_what_removal_needs(own: tuple[Element, ...], pieces: list[Piece]) -> None:
    plan = Plan(Space((Link("host"),)), Space((Link("eth0", mac="02:00:00:00:00:01"),)))
    record = Record(replace(plan, elements=own), pieces=tuple(pieces), foreign="br0")
    found = load_cleanup_record(dump_record(record))
    assert found == cleanup_record_of(record)
    assert (found.host, found.mac, found.foreign) == ("host", "02:00:00:00:00:01", "br0")
    assert set(found.elements) == {*own, *(e for piece in pieces for e in piece.elements)}
    made = {link.name for piece in pieces for link in piece.node.links}
    assert set(found.links) == made - {"host"}


def test_a_plan_with_its_pieces() -> None:
    port = Element("inet", "any_host_ports4", b"1")
    plan = Plan(
        Space((Link("pw0", mac="02:00:00:00:00:01", mtu=1500),)),
        Space((Link("eth0", mac="02:00:00:00:00:02", mtu=1500),), sysctls=(Sysctl("a", "0"),)),
        elements=(port,),
    )
    traits = Link("eth0", "", mtu=1400, up=False, allmulti=False, queue_length=0)
    tuned = Piece("tuning", pod=Space((traits,), sysctls=(Sysctl("a", "1"), Sysctl("b", "2"))))
    limited = Piece("bandwidth", Space((Link("ifb0", "ifb"),)))
    mapped = Piece("portmap", Space(sysctls=(Sysctl("c", "3"),)), elements=(port,))
    record = Record(plan, pieces=(tuned, limited, mapped))
    assert Record(plan).whole == plan
    assert record.whole == Plan(
        Space((plan.node.links[0], Link("ifb0", "ifb")), sysctls=(Sysctl("c", "3"),)),
        Space(
            (replace(plan.pod.links[0], mtu=1400, allmulti=False, queue_length=0),),
            sysctls=(Sysctl("a", "1"), Sysctl("b", "2")),
        ),
        elements=(port,),
    )
    assert record.piece("tuning") == tuned
    assert record.piece("firewall") is None
    assert record.elements_beside("portmap") == {port}
    assert Record(replace(plan, elements=()), pieces=(mapped,)).elements_beside("portmap") == set()
