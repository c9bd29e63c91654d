"""Whatever bytes stdin holds: one error object, and nothing is changed."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugin.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG
from cni_plugin.request import STDIN_MAX
from cni_plugin.versions import SUPPORTED
from tests.unit.cni_plugin.calls import (
    CONFIG,
    TAKES_A_CONFIG,
    Node,
    answered,
    config,
    encode,
    environment,
    refused,
    succeeded,
    with_node,
)


def test_the_configuration_that_is_changed_below_is_right(node: Node) -> None:
    """Else every refusal would prove nothing."""
    result = succeeded(node.call(environment(), CONFIG))
    assert [ip["address"] for ip in result["ips"]] == ["10.88.0.2/24"]
    assert succeeded(node.call(environment("CHECK"), config(prevResult=result))) == {}
    assert succeeded(node.call(environment("STATUS"), CONFIG)) == {}
    assert (
        succeeded(node.call(environment("GC"), {**CONFIG, "cni.dev/valid-attachments": []})) == {}
    )
    assert succeeded(node.call(environment("DEL"), CONFIG)) == {}
    assert node.log[0].endswith("removed stale attachment container1 eth0")


NOT_A_CONFIGURATION = {
    "empty": b"",
    "white space": b" \n\t\r\n ",
    "NUL": b"\0",
    "NULs": b"\0" * 1000,
    "words": b"hello",
    "open brace": b"{",
    "close brace": b"}",
    "array": b"[]",
    "array of it": b"[" + encode(CONFIG) + b"]",
    "string": b'"podnet"',
    "number": b"42",
    "null": b"null",
    "true": b"true",
    "NaN": b"NaN",
    "Infinity": b'{"cniVersion":"1.1.0","name":"podnet","type":"podwire","mtu":Infinity}',
    "inner NaN": b'{"cniVersion":"1.1.0","name":"podnet","type":"podwire","mtu":NaN}',
    "single quotes": b"{'name': 'podnet'}",
    "trailing comma": b'{"name": "podnet",}',
    "comment": b'{"name": "podnet"} // mine',
    "two objects": encode(CONFIG) * 2,
    "something behind it": encode(CONFIG) + b" x",
    "byte order mark": b"\xef\xbb\xbf" + encode(CONFIG),
    "UTF-16": json.dumps(CONFIG).encode("utf-16"),
    "UTF-32": json.dumps(CONFIG).encode("utf-32"),
    "Latin-1": '{"name": "pödnet"}'.encode("latin-1"),
    "lone continuation byte": b'{"name": "pod\x80net"}',
    "encoded surrogate": b'{"name": "pod\xed\xa0\x80net"}',
    "overlong NUL": b'{"name": "pod\xc0\x80net"}',
    "raw control character": b'{"name": "pod\nnet"}',
    "NUL inside": encode(CONFIG).replace(b"podnet", b"pod\0net"),
    "deep arrays": b"[" * 10_000,
    "deep objects": b'{"a":' * 10_000,
    "deep and closed": b'{"name":"podnet","a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep, yet within Python's limit": b'{"name":"podnet","a":' + b"[" * 300 + b"]" * 300 + b"}",
    "deep objects, closed": b'{"name":"podnet","a":' + b'{"a":' * 200 + b"1" + b"}" * 201,
    "half a character": encode(config(name="pod\ud800net")),
    "half a character deep inside": encode(config(args={"labels": ["\udc00\ud800"]})),
    "half a character as a key": encode(config(**{"\udfff": 1})),
    "a number of 5000 digits": b'{"name":"podnet","mtu":' + b"9" * 5000 + b"}",
    "larger than podwire reads": b'{"name":"podnet","type":"' + b"x" * STDIN_MAX + b'"}',
    "blanks larger than podwire reads": encode(CONFIG) + b" " * STDIN_MAX,
}


def test_a_byte_order_mark_is_named(node: Node) -> None:
    body = refused(node.call(environment(), b"\xef\xbb\xbf" + encode(CONFIG)))
    assert (body["code"], body["details"]) == (
        DECODING_FAILURE,
        "it begins with a byte order mark",
    )


@pytest.mark.parametrize("verb", TAKES_A_CONFIG)
@pytest.mark.parametrize("kind", NOT_A_CONFIGURATION)
def test_what_is_no_json_object(node: Node, verb: str, kind: str) -> None:
    body = refused(node.call(environment(verb), NOT_A_CONFIGURATION[kind]))
    assert body["code"] == DECODING_FAILURE
    assert "configuration" in body["msg"]
    assert node.is_untouched()


@pytest.mark.parametrize("verb", TAKES_A_CONFIG)
def test_a_configuration_that_was_cut_off(node: Node, verb: str) -> None:
    whole = json.dumps(CONFIG).encode()
    for length in range(len(whole)):
        body = refused(node.call(environment(verb), whole[:length]))
        assert body["code"] == DECODING_FAILURE, length
    assert node.is_untouched()


@pytest.mark.parametrize("stdin", list(NOT_A_CONFIGURATION.values()), ids=list(NOT_A_CONFIGURATION))
def test_version_needs_no_configuration(node: Node, stdin: bytes) -> None:
    body = succeeded(node.call({"CNI_COMMAND": "VERSION"}, stdin))
    assert body["supportedVersions"] == list(SUPPORTED)
    assert body["cniVersion"] in SUPPORTED
    assert node.is_untouched()


@pytest.mark.parametrize("version", SUPPORTED)
def test_version_answers_in_the_callers_version(node: Node, version: str) -> None:
    body = succeeded(node.call({"CNI_COMMAND": "VERSION"}, {"cniVersion": version}))
    assert body["cniVersion"] == version


UNKNOWN_VERSIONS = ("0.0.1", "0.3.2", "0.5.0", "1.0.1", "1.2.0", "2.0.0", "01.0.0", "1.1.00")
NO_VERSIONS = (
    "1", "1.0", "1.0.0.0", "v1.0.0", "1.0.0-rc1", " 1.0.0", "1.0.0\n", "latest", "1.0.x",
    "\u0661.\u0660.\u0660", "1.0." + "0" * 1000, 1, 1.1, 10**50, True, ["1.0.0"], {"major": 1},
)  # fmt: skip


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("verb", TAKES_A_CONFIG)
@pytest.mark.parametrize("version", [*UNKNOWN_VERSIONS, *NO_VERSIONS], ids=lambda v: repr(v)[:20])
def test_versions_that_podwire_does_not_speak(node: Node, verb: str, version: Any) -> None:
    body = refused(node.call(environment(verb), config(cniVersion=version)))
    known_form = version in UNKNOWN_VERSIONS
    assert body["code"] == (INCOMPATIBLE_VERSION if known_form else DECODING_FAILURE)
    assert "version" in body["msg"].lower()
    assert node.is_untouched()


@pytest.mark.parametrize("version", SUPPORTED)
def test_an_error_is_told_in_the_callers_version(node: Node, version: str) -> None:
    body = refused(node.call(environment(), config(cniVersion=version, name="no good")))
    assert (body["cniVersion"], body["code"]) == (version, INVALID_CONFIG)


@pytest.mark.parametrize(
    ("verb", "version"),
    [
        (verb, version)
        for verb, since in (("CHECK", 4), ("GC", 6), ("STATUS", 6))
        for version in SUPPORTED[:since]
    ],
)
def test_verbs_that_the_version_does_not_have(node: Node, verb: str, version: str) -> None:
    body = refused(node.call(environment(verb), config(cniVersion=version)))
    assert body["code"] == INCOMPATIBLE_VERSION
    assert verb in body["msg"]
    assert version in body["msg"]
    assert node.is_untouched()


def test_the_last_of_equal_keys_counts(node: Node) -> None:
    """As with encoding/json, which the runtimes use."""
    text = json.dumps(CONFIG)
    body = refused(node.call(environment(), (text[:-1] + ', "name": "no good"}').encode()))
    assert "no good" in body["msg"]
    assert node.is_untouched()


@settings(with_node, max_examples=150)
@given(st.data(), st.sampled_from(TAKES_A_CONFIG))
def test_a_configuration_with_changed_bytes(node: Node, data: st.DataObject, verb: str) -> None:
    raw = bytearray(encode(CONFIG))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        length = data.draw(st.integers(0, 3))
        raw[place : place + length] = data.draw(st.binary(max_size=3))
    answered(node.call(environment(verb), bytes(raw)))
    if verb == "ADD":
        answered(node.call(environment("DEL"), bytes(raw)))


@settings(with_node, max_examples=100)
@given(st.binary(max_size=60), st.sampled_from(TAKES_A_CONFIG))
def test_any_bytes(node: Node, raw: bytes, verb: str) -> None:
    body = refused(node.call(environment(verb), raw))
    # b"{}" is of the first version, which has only some of the verbs.
    assert body["code"] in (DECODING_FAILURE, INVALID_CONFIG, INCOMPATIBLE_VERSION)
    assert node.is_untouched()
