"""Our messages as pyroute2 decodes them, and messages that it encodes."""

import socket
from typing import Any

from hypothesis import strategies as st

from kernel.netlink import codec
from kernel.netlink.codec import Message

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
INDEXES = st.integers(1, 2**31 - 1)
REQUEST = codec.NLM_F_REQUEST
CREATE, EXCLUSIVE = codec.NLM_F_CREATE, codec.NLM_F_EXCL


def decode(kind: Any, message: Message) -> Any:
    """The message as pyroute2 decodes it."""
    found = kind(codec.pack(message, 5))
    found.decode()
    assert found["header"]["length"] == 16 + len(message.body)
    return found


def encode(kind: Any, **fields: Any) -> Message:
    """A message that pyroute2 encoded, as we receive it."""
    made = kind()
    for key, value in fields.items():
        made[key] = value
    made.encode()
    [(_sequence, _port, message)] = codec.unpack(bytes(made.data))
    return message


def members(found: Any) -> dict[str, Any]:
    """Attributes by name; none may be there twice."""
    pairs = [(attribute[0], attribute[1]) for attribute in found["attrs"]]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
