"""Hash chains: what follows shows that it does, and nothing else does."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.kubernetes.chain import (
    LENGTH,
    SEED_SIZE,
    STEPS_MAX,
    TOKEN_SIZE,
    parse_token,
    show_token,
    steps,
    token_of,
)

SEEDS = st.binary(min_size=SEED_SIZE, max_size=SEED_SIZE)
SHORT = 40
INDEXES = st.integers(0, SHORT - 1)


def test_a_token_is_what_it_was() -> None:
    """Tokens live on disk and in the API: another function would break every chain."""
    value = bytes(range(32))
    for _ in range(3):
        value = hashlib.sha256(b"podwire NodeNetwork succession 1\0" + value).digest()[:16]
    assert token_of(bytes(range(32)), LENGTH - 3) == value
    assert show_token(value) == "2hzLt9kN5hK663Y4bdpn2g"


@given(SEEDS, INDEXES, INDEXES)
def test_later_tokens_follow_and_earlier_ones_do_not(seed: bytes, old: int, new: int) -> None:
    first, second = token_of(seed, old, SHORT), token_of(seed, new, SHORT)
    wanted = new - old if 0 <= new - old <= STEPS_MAX else None
    assert steps(first, second) == wanted
    assert steps(first, second, SHORT) == (new - old if new >= old else None)


@given(SEEDS, SEEDS, INDEXES, INDEXES)
def test_no_chain_follows_another(seed: bytes, other: bytes, old: int, new: int) -> None:
    if seed != other:
        assert steps(token_of(seed, old, SHORT), token_of(other, new, SHORT), SHORT) is None


@given(SEEDS, INDEXES, st.integers(0, TOKEN_SIZE * 8 - 1))
def test_a_token_with_a_wrong_bit_follows_nothing(seed: bytes, index: int, bit: int) -> None:
    token = bytearray(token_of(seed, index, SHORT))
    token[bit // 8] ^= 1 << bit % 8
    for old in range(index + 1):
        assert steps(token_of(seed, old, SHORT), bytes(token), SHORT) is None


@given(st.binary(min_size=TOKEN_SIZE, max_size=TOKEN_SIZE))
def test_what_is_shown_is_read(token: bytes) -> None:
    text = show_token(token)
    assert len(text) == 22
    assert parse_token(text) == token


@given(st.text(max_size=30) | st.none() | st.integers() | st.lists(st.text()) | st.binary())
def test_whatever_is_read_was_shown(text: object) -> None:
    token = parse_token(text)
    assert token is None or show_token(token) == text


@pytest.mark.parametrize(
    "text", ["A" * 21, "A" * 23, "A" * 21 + "B", "A" * 22 + "\n", "A" * 21 + "="]
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert parse_token(text) is None


@pytest.mark.parametrize("index", [-1, LENGTH])
def test_a_chain_has_an_end(index: int) -> None:
    with pytest.raises(ValueError, match="the chain has tokens 0 to 4095"):
        token_of(bytes(32), index)
