"""YAML files with line numbers: an error names file, line, key path and value.

The subset that configuration files need: one document of mappings, sequences and plain or quoted
scalars. Values have no types of their own (`on`, `1.0` and `12:30` are text until a key asks for
something else). Anchors, aliases, tags and duplicate keys are refused. The file is read event by
event (yaml.org/spec/1.1, 3.1.2 "serialize"): PyYAML's own composer recurses in C as deep as the
file nests, and keeps several times the memory for thousands of nodes.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import yaml

T = TypeVar("T")

FILE_MAX = 16 << 20  # bytes
_DEPTH_MAX = 16
_TOO_DEEP = f"nested deeper than {_DEPTH_MAX} levels"
_SHOWN_MAX = 80
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null"})


class Item:
    """One value of a file: text, list of items, mapping of items, or None. line counts from 1.

    plain: whether text stood without quotes. A member of a mapping has its key's line.
    """

    __slots__ = ("content", "line", "plain")

    def __init__(
        self, content: str | list[Item] | dict[str, Item] | None, line: int, plain: bool = False
    ) -> None:
        self.content, self.line, self.plain = content, line, plain

    def find(self, *path: int | str) -> Item:
        """The item at a path below this one, or the nearest that contains it."""
        item = self
        for step in path:
            if isinstance(item.content, dict) and step in item.content:
                item = item.content[str(step)]
            elif isinstance(item.content, list) and isinstance(step, int):
                item = item.content[step]
        return item


class Fault(Exception):
    """A value that is refused; `load` makes a FileFault of it. shown: whether it may be quoted."""

    def __init__(self, item: Item, why: str, *, shown: bool = True) -> None:
        super().__init__(why)
        self.item, self.why, self.shown = item, why, shown


class FileFault(Exception):
    """What is wrong with a file. line 0: the file as a whole; key and value may be empty."""

    def __init__(
        self, file: Path | str, line: int, why: str, *, key: str = "", value: str = ""
    ) -> None:
        super().__init__(file, line, why, key, value)
        self.file, self.line, self.why, self.key, self.value = str(file), line, why, key, value

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        if self.key and self.value:
            return f"{place}: {self.key} is {self.value}, {self.why}"
        return f"{place}: {self.key}: {self.why}" if self.key else f"{place}: {self.why}"


def load(data: bytes, file: Path | str, read: Callable[[Item], T]) -> T:
    """What `read` makes of the file's content. Raises FileFault."""
    root = _parse(data, file)
    try:
        return read(root)
    except Fault as fault:
        value = show(fault.item) if fault.shown else ""
        key = _path_to(root, fault.item) or ""
        raise FileFault(file, fault.item.line, fault.why, key=key, value=value) from fault


def read_file(path: Path) -> bytes:
    """A file's content, at most a byte more than FILE_MAX. Raises FileFault."""
    try:
        with open(path, "rb") as file:
            return file.read(FILE_MAX + 1)
    except OSError as error:
        raise FileFault(path, 0, f"could not be read: {error.strerror}") from error


def show(item: Item) -> str:
    """The value as messages quote it."""
    if isinstance(item.content, str):
        text = item.content if item.plain and item.content.isdecimal() else repr(item.content)
        return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."
    names = {list: "a list", dict: "a mapping", type(None): "empty"}
    return names[type(item.content)]


def _path_to(root: Item, wanted: Item) -> str | None:
    """The key path of an item, like nodes[3].podCIDRs[0]; empty for the root."""
    pending = [(root, "")]
    while pending:
        item, path = pending.pop()
        if item is wanted:
            return path
        pending += _children(item, path)
    return None


def _children(item: Item, path: str) -> Iterator[tuple[Item, str]]:
    if isinstance(item.content, dict):
        for key, child in item.content.items():
            yield child, f"{path}.{_shorten(key)}" if path else _shorten(key)
    elif isinstance(item.content, list):
        yield from ((child, f"{path}[{n}]") for n, child in enumerate(item.content))


def _shorten(text: str) -> str:
    return text if text.isprintable() and len(text) <= _SHOWN_MAX else reprlib.repr(text)


# -- from bytes to items


def _parse(data: bytes, file: Path | str) -> Item:
    if len(data) > FILE_MAX:
        raise FileFault(file, 0, f"is larger than {FILE_MAX >> 20} MiB")
    try:
        root = _read_document(data.decode("utf-8-sig"))
    except Fault as fault:
        raise FileFault(file, fault.item.line, fault.why) from fault
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        line, why = _explain(error, data)
        raise FileFault(file, line, why) from error
    if root is None or root.content is None:
        raise FileFault(file, 0, "is empty")
    return root


def _explain(error: UnicodeDecodeError | yaml.YAMLError, data: bytes) -> tuple[int, str]:
    """The line of what is no YAML, and why."""
    if isinstance(error, UnicodeDecodeError):
        return data.count(b"\n", 0, error.start) + 1, "is not UTF-8"
    if isinstance(error, yaml.MarkedYAMLError):
        mark, why = error.problem_mark or error.context_mark, error.problem or error.context
        # PyYAML 6.0.4 refuses the 1,000th level while it looks ahead, before any event of them.
        too_deep = "nesting depth" in str(why)
        return mark.line + 1 if mark else 0, _TOO_DEEP if too_deep else f"is not YAML: {why}"
    if isinstance(error, yaml.reader.ReaderError) and isinstance(error.position, int):
        # Bytes in the C parser, characters in the other: a line that is near.
        return data.count(b"\n", 0, error.position) + 1, f"is not YAML: {error.reason}"
    return 0, f"is not YAML: {error}"


def _read_document(text: str) -> Item | None:
    """The one document; None where there is none. Raises Fault, yaml.YAMLError."""
    events = yaml.parse(text, Loader=_LOADER)
    root = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent) and root is not None:
            raise Fault(Item(None, _line(event)), "a second document: one file holds one")
        if isinstance(event, yaml.NodeEvent):
            root = _read_node(event, events, 0)
    return root


def _read_node(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Item:
    """The value that begins with an event; takes the events up to its end."""
    line = _line(event)
    _check(event, line)
    if isinstance(event, yaml.ScalarEvent):
        plain = not event.style
        return Item(None if plain and event.value in _NULLS else event.value, line, plain)
    if depth == _DEPTH_MAX:
        raise Fault(Item(None, line), _TOO_DEEP)
    if isinstance(event, yaml.SequenceStartEvent):
        return Item([_read_node(e, events, depth + 1) for e in _until_end(events)], line)
    return Item(dict(_read_members(events, depth + 1)), line)


def _read_members(events: Iterator[yaml.Event], depth: int) -> Iterator[tuple[str, Item]]:
    lines: dict[str, int] = {}
    for event in _until_end(events):
        line = _line(event)
        _check(event, line)
        if not isinstance(event, yaml.ScalarEvent):
            raise Fault(Item(None, line), "a list or mapping cannot be a key")
        key = event.value
        if key in lines:
            why = f"duplicate key {_shorten(key)}, which line {lines[key]} has already"
            raise Fault(Item(None, line), why)
        lines[key] = line
        item = _read_node(next(events), events, depth)
        item.line = line
        yield key, item


def _until_end(events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """The events up to the end of the list or mapping that is open."""
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            return
        yield event


def _check(event: yaml.Event, line: int) -> None:
    anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
    name = _shorten(anchor or "")
    if isinstance(event, yaml.AliasEvent):
        raise Fault(Item(None, line), f"alias *{name}: aliases are not supported")
    if anchor:
        raise Fault(Item(None, line), f"anchor &{name}: anchors are not supported")
    if tag is not None:
        raise Fault(Item(None, line), f"tag {_shorten(tag)}: tags are not supported")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
