"""The newest token of each node: by it a later one shows that the node itself wrote its object.

A token is worth something only while nobody else can know it, that is as long as each one that was
ever revealed was heard. So a pin lives on what came without a gap: the events of a watch, in their
order, whose objects count their changes (metadata.generation, which only the API server writes).
Where anything may have been missed, something false was said, or the object went, the pin goes, and
its node's changes are asked about from then on; where nobody can tell whose an event was, all go.
Nothing but forgetting the node makes room for another one: whoever could plant a pin for a node
that is known could take that node's traffic some day.
Pure, but for the reading of what others wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from hashlib import sha256
from typing import Any

from daemon.sources.kubernetes.chain import parse_token, steps
from daemon.sources.kubernetes.objects import read_succession, version_of

Pin = bytes
"""Token, owner's uid, object's uid (8 bytes of a hash each), the object's generation; one value,
for thousands of them are kept."""
_FORM = struct.Struct(">16s8s8sQ")
_NOBODY = bytes(8)


class Pins:
    """Pins of nodes, by name; for one thread. kept: those of an earlier daemon."""

    def __init__(self, kept: Mapping[str, Pin] | None = None) -> None:
        self._pins = {n: pin for n, pin in (kept or {}).items() if len(pin) == _FORM.size}
        self._copy: dict[str, Pin] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._pins

    def __len__(self) -> int:
        return len(self._pins)

    def copy(self) -> Mapping[str, Pin]:
        """All of them as they are now; nobody changes it."""
        if self._copy is None:
            self._copy = dict(self._pins)
        return self._copy

    def meet(self, name: str, pin: Pin | None) -> None:
        """A node that nothing was known of: its token is believed as what it claims is."""
        self._put(name, pin)

    def hear(self, name: str, pin: Pin | None) -> bool:
        """The next state of a node's object in a watch; whether the node itself wrote it anew."""
        old = self._pins.get(name)
        if old is None:
            return False
        count = _follow(old, pin) if pin is not None else None
        if pin is None or count is None:
            self.drop(name)
            return False
        token, owner, life, generation = _FORM.unpack(pin)
        known_owner = _FORM.unpack(old)[1]
        if not count:
            # Somebody else may have written this: whose object it is was said before.
            owner = known_owner
        self._put(name, _FORM.pack(token, owner, life, generation))
        return count > 0 and owner == known_owner != _NOBODY

    def compare(self, listed: Mapping[str, Pin | None]) -> None:
        """What a list says: whoever changed meanwhile may have tokens that were not heard."""
        self.keep({name for name, pin in self._pins.items() if listed.get(name) == pin})

    def keep(self, names: Container[str]) -> None:
        """Drop all others."""
        kept = {name: pin for name, pin in self._pins.items() if name in names}
        if len(kept) < len(self._pins):
            self._pins, self._copy = kept, None

    def drop(self, name: str) -> None:
        """Ask about whatever this node changes from now on."""
        self._put(name, None)

    def clear(self) -> None:
        """Drop all."""
        self.keep(())

    def _put(self, name: str, pin: Pin | None) -> None:
        if self._pins.get(name) == pin:
            return
        self._copy = None
        if pin is None:
            del self._pins[name]
        else:
            self._pins[name] = pin


def _follow(old: Pin, new: Pin) -> int | None:
    """How many tokens later; None where it does not follow, or something between is missing."""
    token, _, life, generation = _FORM.unpack(old)
    fresh, _, fresh_life, fresh_generation = _FORM.unpack(new)
    # Another token is a change of the spec; what is changed beside that is not counted.
    changes = (0, 1) if fresh == token else (1,)
    whole = fresh_life == life and fresh_generation - generation in changes
    return steps(token, fresh) if whole else None


def read_pin(thing: object) -> Pin | None:
    """What a NodeNetwork says of itself, as it came from JSON; None where that is no token."""
    token = parse_token(read_succession(thing))
    life, generation = version_of(thing)
    if token is None or not life or not 0 < generation < 1 << 63:
        return None
    return _FORM.pack(token, _hash(_read_owner(thing)), _hash(life), generation)


def _read_owner(thing: object) -> str:
    """The uid of the Node of the same name that the object goes with; empty where none is named."""
    name, owners = _get(thing, "metadata", "name"), _get(thing, "metadata", "ownerReferences")
    uids = [
        owner.get("uid")
        for owner in (owners if isinstance(owners, list) else ())
        if isinstance(owner, dict) and (owner.get("kind"), owner.get("name")) == ("Node", name)
    ]
    return uids[0] if len(uids) == 1 and isinstance(uids[0], str) else ""


def _hash(text: str) -> bytes:
    """Few bytes for a text that whoever writes it may choose; none for none."""
    data = text.encode(errors="surrogatepass")
    return sha256(data).digest()[:8] if data else _NOBODY


def _get(thing: object, *keys: str) -> Any:
    for key in keys:
        thing = thing.get(key) if isinstance(thing, dict) else None
    return thing
