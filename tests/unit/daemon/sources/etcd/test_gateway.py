"""Answers of etcd's gateway: read however they are cut, refused in our words whatever they are."""

from __future__ import annotations

import http.client
import io
import itertools
import json
from typing import Any

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.etcd.gateway import (
    Denied,
    RequestRefused,
    Unauthenticated,
    Unreachable,
    error_of,
    root_of,
)
from daemon.sources.etcd.keys import Malformed, header_of, pairs_of
from daemon.sources.etcd.watcher import Stream
from daemon.sources.remote import SourceError

HERE = "https://192.0.2.1:2379"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Wire:
    """What a server wrote, for http.client."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def stream_of(body: bytes) -> Stream:
    """A stream whose server wrote that, and closed the connection."""
    answer = http.client.HTTPResponse(_Wire(HEAD + body))  # type: ignore[arg-type]
    answer.begin()
    response = requests.Response()
    headers = {"transfer-encoding": "chunked"}
    response.raw = urllib3.HTTPResponse(answer, headers=headers, preload_content=False)
    return Stream(HERE, response, 10.0)


def chunked(data: bytes, cuts: list[int]) -> bytes:
    """As chunks (RFC 9112, 7.1), with the last one that ends them."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts = [data[a:b] for a, b in itertools.pairwise(places)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def read(body: bytes) -> tuple[list[dict[str, Any]], str]:
    """The answers of a stream, and how it ends."""
    answers = []
    try:
        for answer in stream_of(body).answers():
            answers.append(answer)
    except Unreachable as error:
        return answers, str(error)
    return answers, ""


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=30))),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.sampled_from([b"\n", b"\n\n"]),
)
def test_answers_are_read_however_they_are_cut(
    results: list[dict[str, Any]], cuts: list[int], end: bytes
) -> None:
    data = b"".join(json.dumps({"result": result}).encode() + end for result in results)
    assert read(chunked(data, cuts)) == (results, f"{HERE}: the stream of events ended")


@given(st.binary(max_size=200), st.booleans())
def test_whatever_it_is_it_ends_in_our_words(body: bytes, whole: bool) -> None:
    _, why = read(chunked(body, []) if whole else body)
    assert why.startswith(HERE)
    assert why.isprintable()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the connection was lost"),
        (b"ff\r\n{", "the connection was lost"),
        (chunked(b'{"error": {"message": "no leader"}}\n', []), "no leader"),
    ],
)
def test_how_it_broke(body: bytes, why: str) -> None:
    answers, end = read(body)
    assert answers == []
    assert why in end


def test_a_stream_that_was_interrupted_just_ends() -> None:
    stream = stream_of(b"ff\r\n{")
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
    fault = error_of(HERE, json.dumps({"error": message, "message": message, "code": code}))
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
    assert str(error_of(HERE, text)).startswith(HERE)


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


def test_the_root_of_an_error_is_shown_without_its_wrapping() -> None:
    inner = ConnectionRefusedError(111, "Connection refused")
    wrapped = requests.ConnectionError(urllib3.exceptions.MaxRetryError(
        None, "/v3/kv/txn", urllib3.exceptions.ProtocolError("x", inner)  # type: ignore[arg-type]
    ))  # fmt: skip
    assert root_of(wrapped) == "Connection refused"
