"""Hash chains: whoever reveals the next value of one is who made it.

Lamport, "Password authentication with insecure communication", 1981; as S/KEY in RFC 2289. A chain
is a secret, hashed again and again: the last hash is revealed first, and each later one is hashed
to the one before, which nobody else can find in time. A value proves itself to those alone who know
that it was secret until then; it says nothing of what is said beside it.
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256

LENGTH = 4096
"""Tokens of one chain."""
STEPS_MAX = 16
"""So far a token may be from the one known before: some are never seen by others."""
TOKEN_SIZE, SEED_SIZE = 16, 32
"""Bytes."""
_DOMAIN = b"podwire NodeNetwork succession 1\0"
# What 16 bytes are in base64url without padding (RFC 4648, 5): 4 bits of the last one are zero.
_TEXT = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]")


def token_of(seed: bytes, index: int, length: int = LENGTH) -> bytes:
    """A chain's token, 0 the first that is revealed. Raises ValueError where there is none."""
    if not 0 <= index < length:
        raise ValueError(f"the chain has tokens 0 to {length - 1}, not {index}")
    value = seed
    for _ in range(length - index):
        value = _hash(value)
    return value


def steps(old: bytes, new: bytes, most: int = STEPS_MAX) -> int | None:
    """How many tokens after the old one the new one comes; None where it does not follow."""
    value = new
    for count in range(most + 1):
        if value == old:
            return count
        value = _hash(value)
    return None


def show_token(token: bytes) -> str:
    """As it stands in an object."""
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def parse_token(text: object) -> bytes | None:
    """What `show_token` made; None where it is nothing of the kind."""
    if not isinstance(text, str) or not _TEXT.fullmatch(text):
        return None
    return base64.urlsafe_b64decode(f"{text}==")


def _hash(value: bytes) -> bytes:
    return sha256(_DOMAIN + value).digest()[:TOKEN_SIZE]
