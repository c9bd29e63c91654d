"""Records of attachments, through text and back."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugin.attachment import Record, dump_record, load_record
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
