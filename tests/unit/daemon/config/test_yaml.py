"""Files in YAML: what is taken, what is refused, and how the place of a fault is named."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import yaml as yamlfile
from daemon.config.yaml import Fault, FileFault, Item, load

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
values = st.recursive(
    texts, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)


def plain(item: Item) -> Any:
    """The item without its lines."""
    if isinstance(item.content, dict):
        return {key: plain(child) for key, child in item.content.items()}
    if isinstance(item.content, list):
        return [plain(child) for child in item.content]
    return item.content


def load_or_fault(data: bytes) -> tuple[Any, FileFault | None]:
    """The content, or why it cannot be had; nothing else may come up."""
    try:
        return load(data, "f.yaml", plain), None
    except FileFault as fault:
        return None, fault


@given(values.filter(lambda value: isinstance(value, list | dict)), st.booleans())
def test_what_another_writer_wrote_is_read_back(value: Any, flow: bool) -> None:
    written = yaml.safe_dump(
        value, default_flow_style=flow, allow_unicode=True, default_style='"', sort_keys=False
    )
    assert load(written.encode(), "f", plain) == value


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    result, fault = load_or_fault(data)
    assert (result is None) != (fault is None)
    assert fault is None or (str(fault).startswith("f.yaml") and fault.why)


@given(values.filter(lambda value: isinstance(value, dict) and bool(value)), st.data())
def test_a_file_cut_off_anywhere_never_breaks_the_reader(value: Any, data: st.DataObject) -> None:
    written = yaml.safe_dump(value, default_style='"', allow_unicode=True).encode()
    cut = written[: data.draw(st.integers(0, len(written)))]
    result, fault = load_or_fault(cut)
    assert (result is None) != (fault is None)


@pytest.mark.parametrize(
    ("data", "line", "why"),
    [
        (b"", 0, "is empty"),
        (b"# nothing\n---\n", 0, "is empty"),
        (b"a: 1\nb: [1,\n", 3, "is not YAML"),
        (b"a: 1\n\xff\xfe\n", 2, "is not UTF-8"),
        (b"a: 1\nb: \x01\n", 2, "control characters"),
        (b"a: 1\nb: 2\na: 3\n", 3, "duplicate key a, which line 1 has already"),
        (b"a: 1\n---\nb: 2\n", 2, "a second document"),
        (b"a: &x [1]\n", 1, "anchors are not supported"),
        (b"a: 1\nb: *x\n", 2, "aliases are not supported"),
        (b"a: 1\n<<: *x\n", 2, "aliases are not supported"),
        (b"a: !!python/object/apply:os.system [x]\n", 1, "tags are not supported"),
        (b"a: !!str 1\n", 1, "tags are not supported"),
        (b"? [a, b]\n: 1\n", 1, "cannot be a key"),
        (b"? {a: b}\n: 1\n", 1, "cannot be a key"),
        (b"[" * 17 + b"]" * 17, 1, "nested deeper than 16 levels"),
        (b"[" * 100_000, 1, "nested deeper than 16 levels"),
        (b"a: 1\nb: " + b"[ " * 1200, 2, "nested deeper than 16 levels"),
        (b"[" * 995 + b"a,[[[[[[", 1, "nested deeper than 16 levels"),
        (b"- '" + b"[" * 16 + b"'\n- '", 2, "is not YAML"),
        (b"\n".join(b" " * n + b"a:" for n in range(40)), 17, "nested deeper than 16 levels"),
    ],
)
def test_what_is_refused_is_said_with_its_line(data: bytes, line: int, why: str) -> None:
    with pytest.raises(FileFault) as caught:
        load(data, "f", plain)
    assert caught.value.line == line, caught.value
    assert why in caught.value.why


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    names = "abcdefghij"
    lines += [f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]" for p, n in pairwise(names)]
    with pytest.raises(FileFault, match=r"f:1: anchor &a: anchors are not supported"):
        load("\n".join(lines).encode(), "f", plain)


def test_a_file_larger_than_any_is_not_even_parsed() -> None:
    with pytest.raises(FileFault, match="larger than 16 MiB"):
        load(b"#" * (yamlfile.FILE_MAX + 1), "f", plain)


def test_scalars_have_no_type_of_their_own() -> None:
    found = load(
        b"{a: on, b: 1.0, c: 12:30, d: 0x10, e: ~, f: '~', g: , h: 2001-01-01}", "f", plain
    )
    assert found == {
        "a": "on", "b": "1.0", "c": "12:30", "d": "0x10",
        "e": None, "f": "~", "g": None, "h": "2001-01-01",
    }  # fmt: skip


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert load(b"\xef\xbb\xbfa: 1\n", "f", plain) == {"a": "1"}


def test_the_slow_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"# c\na: [1, 'x', {b: c}]\nd:\n- e\n- f: ~\n"
    fast = load(data, "f", plain)
    monkeypatch.setattr(yamlfile, "_LOADER", yaml.SafeLoader)
    assert load(data, "f", plain) == fast
    with pytest.raises(FileFault, match=r"f:2: .*special characters"):
        load(b"a: 1\nb: \x01\n", "f", plain)


def find(root: Item, *path: str | int) -> Item:
    """The item at a path."""
    for step in path:
        assert isinstance(root.content, list | dict)
        root = root.content[step]  # type: ignore[index]
    return root


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), "f:2: must be right"),
        (("a",), "f:2: a is a list, must be right"),
        (("a", 0), "f:3: a[0] is 'x', must be right"),
        (("a", 1, "b"), "f:4: a[1].b is a mapping, must be right"),
        (("a", 1, "b", "c"), "f:5: a[1].b.c is 7, must be right"),
        (("e",), "f:6: e is empty, must be right"),
    ],
)
def test_a_fault_names_file_line_key_and_value(path: tuple[str | int, ...], text: str) -> None:
    def read(root: Item) -> None:
        raise Fault(find(root, *path), "must be right", shown=bool(path))

    with pytest.raises(FileFault) as caught:
        load(b"# first\na:\n- x\n- b:\n    c: 7\ne:\n", "f", read)
    assert str(caught.value) == text


def test_hostile_keys_and_values_stay_on_one_short_line() -> None:
    def read(root: Item) -> None:
        assert isinstance(root.content, dict)
        raise Fault(next(iter(root.content.values())), "must be right")

    data = ('"' + "k" * 500 + r'\n\e[31m": "' + "v" * 500 + r'\n\e[31m"').encode()
    with pytest.raises(FileFault) as caught:
        load(data, "f", read)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
