"""YAML files with line numbers: what is wrong in one is named by file, line, key and value.

The subset that configuration files need: one document of mappings, sequences and plain or quoted
scalars. Values have no types of their own (`on`, `1.0` and `12:30` are text until a key asks for
something else). Anchors, aliases, tags and duplicate keys are refused. The file is read event by
event (yaml.org/spec/1.1, 3.1.2 "serialize"), so thousands of nodes cost little memory.
"""

from __future__ import annotations

import re
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
_LOOK_AHEAD_MAX = 1024
"""Characters that may pass before it is clear whether a mapping's key began (yaml.org/spec/1.1)."""
_OPENED_TOO_OFTEN = re.compile(rf"(?:[\[{{]\s*){{{_DEPTH_MAX + 1}}}")
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


class Fault(Exception):
    """A value that cannot be taken; `load` makes a FileFault of it."""

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
        text = data.decode("utf-8-sig")
        root = _Builder(file).build(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileFault(file, line, "is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = f"is not YAML: {error.problem or error.context}"
        if mark and _is_too_deep(text, mark):
            why = _TOO_DEEP
        raise FileFault(file, mark.line + 1 if mark else 0, why) from error
    except yaml.reader.ReaderError as error:
        why = f"is not YAML: {error.reason}"
        raise FileFault(file, _reader_line(text, error), why) from error
    except yaml.YAMLError as error:
        raise FileFault(file, 0, f"is not YAML: {error}") from error
    if root is None or root.content is None:
        raise FileFault(file, 0, "is empty")
    return root


def _is_too_deep(text: str, mark: yaml.Mark) -> bool:
    """Whether the parser, while it looked ahead, met a depth that no event has reported yet.

    PyYAML from 6.0.4 on refuses the 1,000th level. In so few characters most of them are brackets.
    """
    ahead = text[max(mark.index - _LOOK_AHEAD_MAX, 0) : mark.index]
    return _OPENED_TOO_OFTEN.search(ahead) is not None


def _reader_line(text: str, error: yaml.reader.ReaderError) -> int:
    # position counts bytes in the C parser, characters in the other: either finds the line of
    # what is not printable, for the text before it is looked at in the same unit.
    position = error.position if isinstance(error.position, int) else 0
    if _LOADER is yaml.SafeLoader:
        return text.count("\n", 0, position) + 1
    return text.encode().count(b"\n", 0, position) + 1


class _Builder:
    """Items from a stream of events; the open containers are a stack, so nothing recurses."""

    def __init__(self, file: Path | str) -> None:
        self._file = file
        self._open: list[_Frame] = []
        self._root: Item | None = None

    def build(self, text: str) -> Item | None:
        """The document; None where there is none. Raises FileFault, yaml.YAMLError."""
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.NodeEvent):
                self._check(event, line)
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
            elif isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
                raise FileFault(self._file, line, "a second document: one file holds one")
        return self._root

    def _check(self, event: yaml.NodeEvent, line: int) -> None:
        name = _shorten(event.anchor or "")
        if isinstance(event, yaml.AliasEvent):
            raise FileFault(self._file, line, f"alias *{name}: aliases are not supported")
        if name:
            raise FileFault(self._file, line, f"anchor &{name}: anchors are not supported")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise FileFault(self._file, line, f"tag {_shorten(tag)}: tags are not supported")

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        frame = self._open[-1] if self._open else None
        if frame and isinstance(frame.content, dict) and frame.key is None:
            self._check_key(frame.content, event.value, line)
            frame.key, frame.line = event.value, line
            return
        plain = not event.style
        self._add(Item(None if plain and event.value in _NULLS else event.value, line, plain))

    def _check_key(self, mapping: dict[str, Item], key: str, line: int) -> None:
        if key in mapping:
            why = f"duplicate key {_shorten(key)}, which line {mapping[key].line} has already"
            raise FileFault(self._file, line, why)

    def _begin(self, content: list[Item] | dict[str, Item], line: int) -> None:
        if len(self._open) >= _DEPTH_MAX:
            raise FileFault(self._file, line, _TOO_DEEP)
        self._add(Item(content, line))
        self._open.append(_Frame(content))

    def _add(self, item: Item) -> None:
        if not self._open:
            self._root = item
            return
        frame = self._open[-1]
        if isinstance(frame.content, list):
            frame.content.append(item)
            return
        if frame.key is None:
            raise FileFault(self._file, item.line, "a list or mapping cannot be a key")
        frame.content[frame.key], item.line, frame.key = item, frame.line, None


class _Frame:
    """An open container; in a mapping, the key that waits for its value, and its line."""

    __slots__ = ("content", "key", "line")

    def __init__(self, content: list[Item] | dict[str, Item]) -> None:
        self.content, self.line = content, 0
        self.key: str | None = None
