"""Values of a YAML file, read as what a key asks for; Fault says what it must be."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TypeVar

from daemon.config.yaml import Fault, Item

T = TypeVar("T")

_KEY_MAX = 80


class Section:
    """A mapping whose keys are known; reading one that is absent gives its default."""

    def __init__(self, item: Item, keys: Sequence[str]) -> None:
        if not isinstance(item.content, dict):
            raise Fault(item, "must be a mapping")
        for key, child in item.content.items():
            if key not in keys:
                raise Fault(child, unknown_key(key, keys), shown=False)
        self.item = item
        self._items = item.content

    def get(self, key: str, read: Callable[[Item], T], default: T) -> T:
        """The key's value, or the default where the key is absent or has none."""
        item = self._items.get(key)
        return default if item is None or item.content is None else read(item)

    def require(self, key: str, read: Callable[[Item], T]) -> T:
        """The key's value. Raises Fault where the key is absent or has none."""
        item = self._items.get(key)
        if item is None:
            raise Fault(self.item, f"needs the key {key}", shown=False)
        if item.content is None:
            raise Fault(item, "has no value", shown=False)
        return read(item)


def unknown_key(key: str, keys: Sequence[str]) -> str:
    """What a message says of a key that is none of those known."""
    near = difflib.get_close_matches(key[:_KEY_MAX], keys, n=1, cutoff=0.6)
    same = [known for known in keys if known.lower() == key.lower()]
    guess = same or near
    tail = f"did you mean {guess[0]}?" if guess else f"known keys: {', '.join(keys)}"
    return f"unknown key; {tail}"


def read_text(item: Item) -> str:
    """Text, quoted or not. Raises Fault."""
    if not isinstance(item.content, str):
        raise Fault(item, "must be text")
    return item.content


def read_parsed(parse: Callable[[str], T]) -> Callable[[Item], T]:
    """A reader of text that `parse` takes or refuses with a ValueError."""

    def read(item: Item) -> T:
        text = read_text(item)
        try:
            return parse(text)
        except ValueError as error:
            raise Fault(item, str(error)) from error

    return read


def read_list(read: Callable[[Item], T]) -> Callable[[Item], tuple[T, ...]]:
    """A reader of lists whose members `read` takes."""

    def read_all(item: Item) -> tuple[T, ...]:
        return tuple(read(member) for member in list_items(item))

    return read_all


def list_items(item: Item) -> list[Item]:
    """A list's members. Raises Fault where the item is none."""
    if not isinstance(item.content, list):
        raise Fault(item, "must be a list")
    return item.content
