"""Answers of etcd's gateway: read however they are cut, refused in our words whatever they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.etcd.gateway import Denied, RequestRefused, Unauthenticated, error_of
from daemon.sources.etcd.keys import Malformed, header_of, pairs_of
from daemon.sources.etcd.stream import Stream
from daemon.sources.http import Session, Unreachable
from daemon.sources.remote import SourceError

HERE = "https://192.0.2.1:2379"


class _Session(Session):
    """A session that was interrupted, or not."""

    def __init__(self) -> None:
        self.is_closed, self._name = False, HERE

    def interrupt(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.is_closed = True


def stream_of(*batches: list[bytes], error: Exception | None = None) -> Stream:
    """A stream of these lines, which then ends or breaks."""

    @contextmanager
    def parts() -> Iterator[Iterator[bytes]]:
        yield follow()

    def follow() -> Iterator[bytes]:
        yield from (b"".join(line + b"\n" for line in lines) for lines in batches)
        if error:
            raise error

    return Stream(HERE, _Session(), parts())


def read(stream: Stream) -> tuple[list[dict[str, Any]], str]:
    """The answers of a stream, and how it ends."""
    answers = []
    try:
        for answer in stream.answers():
            answers.append(answer)
    except Unreachable as error:
        return answers, str(error)
    return answers, ""


def test_answers_come_until_the_stream_ends() -> None:
    batches: tuple[list[bytes], ...] = (
        [b'{"result": {"a": 1}}', b'{"result": {}}'],
        [],
        [b'{"result": {"b": 2}}'],
    )
    assert read(stream_of(*batches)) == (
        [{"a": 1}, {}, {"b": 2}],
        f"{HERE}: the stream of events ended",
    )


@given(st.binary(max_size=200))
def test_whatever_it_is_it_ends_in_our_words(line: bytes) -> None:
    _, why = read(stream_of([line]))
    assert why.startswith(HERE)
    assert why.isprintable()


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (stream_of([b'{"error": {"message": "no leader"}}']), "no leader"),
        (stream_of([b"{"]), "the stream of events broke: JSONDecodeError"),
        (stream_of([b'{"a":' * 100_000]), "the stream of events broke: RecursionError"),
        (stream_of(error=Unreachable("it was cut")), "it was cut"),
    ],
)
def test_how_it_broke(stream: Stream, why: str) -> None:
    answers, end = read(stream)
    assert answers == []
    assert why in end


def test_a_stream_that_was_interrupted_just_ends() -> None:
    stream = stream_of(error=Unreachable("it was cut"))
    stream.interrupt()
    assert list(stream.answers()) == []


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (16, "etcdserver: invalid auth token", Unauthenticated),
        (3, "etcdserver: revision of auth store is old", Unauthenticated),
        (3, "etcdserver: user name is empty", Denied),
        (3, "etcdserver: authentication failed, invalid user ID or password", Denied),
        (7, "etcdserver: permission denied", Denied),
        (14, "etcdserver: no leader", Unreachable),
        (4, "context deadline exceeded", Unreachable),
        (11, "etcdserver: mvcc: required revision has been compacted", RequestRefused),
        (8, "etcdserver: mvcc: database space exceeded", RequestRefused),
    ],
)
def test_what_errors_mean(code: int, message: str, kind: type[SourceError]) -> None:
    body = {"error": message, "message": message, "code": code}
    fault = error_of(HERE, json.dumps(body).encode(), 400)
    assert type(fault) is kind
    assert message.removeprefix("etcdserver: ") in str(fault)


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["code", "message", "error"]), inner)
        ),
    ).map(json.dumps)
)
def test_any_error_is_a_fault(text: str) -> None:
    assert str(error_of(HERE, text.encode(errors="replace"), 400)).startswith(HERE)


@given(st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["header", "cluster_id", "revision", "responses", "response_range", "kvs"]),
        inner,
    ),
))  # fmt: skip
def test_any_answer_is_read_or_malformed(answer: Any) -> None:
    for parse in (header_of, pairs_of):
        try:
            parse(answer if isinstance(answer, dict) else {"responses": answer})
        except Malformed:
            continue
