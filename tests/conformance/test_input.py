"""Malformed standard input (SPEC section 5 "Error": 5, 6, 7)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .network import Network, Pod, encode
from .request import Reply
from .spec import DECODE_FAILURE, INVALID_CONFIG, IO_FAILURE

MEBIBYTE = 1 << 20
# Not one JSON object, so error 6.
UNDECODABLE = {
    "empty": b"",
    "blank": b" \n\t",
    "truncated": b'{"cniVersion": "1.0.0", "name": "x", "type',
    "no-json": b"not json",
    "single-quotes": b"{'cniVersion': '1.0.0'}",
    "array": b'[{"cniVersion": "1.0.0", "name": "x"}]',
    "string": b'"1.0.0"',
    "number": b"42",
    "two-objects": b'{"cniVersion": "1.0.0", "name": "x"}{}',
    "zero-bytes": b"\0" * 64,
    "utf-16": '{"cniVersion": "1.0.0", "name": "x"}'.encode("utf-16"),
    "deep-array": b"[" * 200_000,
    "deep-object": b'{"a":' * 200_000,
    "long-truncated": b'{"cniVersion": "1.0.0", "name": "' + b"x" * (4 * MEBIBYTE),
}
# JSON, but a key has a type that no configuration can have: 6 or 7.
WRONG_TYPES: dict[str, dict[str, Any]] = {
    "version-number": {"cniVersion": 1.0},
    "version-null-object": {"cniVersion": {}},
    "name-number": {"name": 5},
    "name-list": {"name": ["x"]},
    "type-number": {"type": 5},
    "ipam-list": {"ipam": ["host-local"]},
    "ipam-string": {"ipam": "host-local"},
    "ipam-type-number": {"ipam": {"type": 7}},
    "dns-string": {"dns": "10.0.0.1"},
    "runtime-config-list": {"runtimeConfig": ["portMappings"]},
    "prev-result-string": {"prevResult": "none"},
    "prev-result-list": {"prevResult": []},
}
# SPEC section 1, name: alphanumeric first, then also underscore, dot, hyphen.
BAD_NAMES = {
    "empty": "",
    "dot-first": ".x",
    "hyphen-first": "-x",
    "slash": "a/b",
    "parent": "../../tmp/x",
    "space": "a b",
    "newline-last": "a\n",
    "zero": "a\0b",
    "not-ascii": "n\u00e9t",
}
BAD_SUBNETS = {
    "nonsense": "nonsense",
    "prefix-too-long": "10.89.0.0/33",
    "no-prefix": "10.89.0.0",
    "empty": "",
    "negative": "10.89.0.0/-1",
    "number": 10,
}
VERBS = ["ADD", "DEL", pytest.param("CHECK", marks=pytest.mark.cni_needs("CHECK"))]
OTHERS = [
    *VERBS[1:],
    pytest.param("GC", marks=pytest.mark.cni_needs("GC")),
    pytest.param("STATUS", marks=pytest.mark.cni_needs("STATUS")),
]


def feed(net: Network, pod: Pod, command: str, stdin: bytes) -> Reply:
    """Calls with *stdin*; asserts that nothing changed."""
    with_pod = pod if command in ("ADD", "DEL", "CHECK") else None
    request = net.request(command, with_pod, {})
    with net.unchanged(pod):
        return net.run(replace(request, stdin=stdin))


@pytest.mark.parametrize("case", UNDECODABLE)
def test_undecodable(net: Network, pod: Pod, case: str) -> None:
    """Section 5, Error 6: "Failed to decode content"."""
    feed(net, pod, "ADD", UNDECODABLE[case]).error(DECODE_FAILURE)


@pytest.mark.parametrize("command", OTHERS)
@pytest.mark.parametrize("case", ["empty", "truncated", "array", "deep-array"])
def test_undecodable_for_other_verbs(net: Network, pod: Pod, command: str, case: str) -> None:
    """Section 5, Error 6, for every verb that reads a configuration."""
    feed(net, pod, command, UNDECODABLE[case]).error(DECODE_FAILURE)


def test_null(net: Network, pod: Pod) -> None:
    """Section 1: "a JSON object"; null is none: 6 or 7."""
    feed(net, pod, "ADD", b"null").error(DECODE_FAILURE, INVALID_CONFIG)


def test_name_that_is_not_utf8(net: Network, pod: Pod) -> None:
    """Section 1, name; RFC 8259 section 8.1: JSON is UTF-8. 6 or 7."""
    text = encode(net.conf(name="NAME")).replace(b"NAME", b"a\xff\xfeb")
    feed(net, pod, "ADD", text).error(DECODE_FAILURE, INVALID_CONFIG)


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_type(net: Network, pod: Pod, case: str) -> None:
    """Section 5, Error: one error object, exit status not 0, nothing changed."""
    feed(net, pod, "ADD", encode({**net.conf(), **WRONG_TYPES[case]})).error()


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_code_for_wrong_type(net: Network, pod: Pod, case: str) -> None:
    """Section 5, Error 6 "failed to unmarshal network config", or 7."""
    reply = feed(net, pod, "ADD", encode({**net.conf(), **WRONG_TYPES[case]}))
    reply.error(DECODE_FAILURE, INVALID_CONFIG)


@pytest.mark.parametrize("command", VERBS)
@pytest.mark.parametrize("case", BAD_NAMES)
def test_invalid_network_name(net: Network, pod: Pod, command: str, case: str) -> None:
    """Section 1, name; section 5, Error 7."""
    feed(net, pod, command, encode(net.conf(name=BAD_NAMES[case]))).error(INVALID_CONFIG)


def test_missing_network_name(net: Network, pod: Pod) -> None:
    """Section 3, Deriving request configuration: name is always there. Error 7."""
    conf = net.conf()
    del conf["name"]
    feed(net, pod, "ADD", encode(conf)).error(INVALID_CONFIG)


@pytest.mark.cni_needs("ranges")
@pytest.mark.parametrize("case", BAD_SUBNETS)
def test_invalid_subnet(net: Network, pod: Pod, case: str) -> None:
    """Section 5, Error: one error object."""
    ipam = {**net.body["ipam"], "ranges": [[{"subnet": BAD_SUBNETS[case]}]]}
    net.add(pod, conf=net.conf(ipam=ipam)).error()


@pytest.mark.cni_needs("ranges")
def test_invalid_subnet_changes_nothing(net: Network, pod: Pod) -> None:
    """Section 2, ADD: a configuration that cannot be meant touches nothing (SHOULD)."""
    ipam = {**net.body["ipam"], "ranges": [[{"subnet": "nonsense"}]]}
    feed(net, pod, "ADD", encode(net.conf(ipam=ipam))).error()


@pytest.mark.cni_needs("ranges")
def test_code_for_invalid_subnet(net: Network, pod: Pod) -> None:
    """Section 5, Error 7: "If some validations on network configs do not pass", or 6."""
    ipam = {**net.body["ipam"], "ranges": [[{"subnet": "nonsense"}]]}
    net.add(pod, conf=net.conf(ipam=ipam)).error(DECODE_FAILURE, INVALID_CONFIG)


def test_input_that_cannot_be_read(net: Network, pod: Pod, tmp_path: Path) -> None:
    """Section 5, Error 5: "failed to read network config bytes from stdin"."""
    with (tmp_path / "write-only").open("wb") as stdin, net.unchanged(pod):
        reply = net.run(net.request("ADD", pod, {}), stdin=stdin)
    reply.error(IO_FAILURE)


def test_large_configuration(net: Network, pod: Pod) -> None:
    """Section 1: no limit on size; success, or one error object with nothing left."""
    net.attach()  # so that what all pods share exists
    conf = net.conf(args={"junk": "x" * MEBIBYTE})
    with net.unchanged(pod, ignore=("lo", "eth0")):
        if not net.add(pod, conf=conf).failed():
            net.run(net.request("DEL", pod, conf)).ok()
    assert pod.space.link_names() == {"lo"}


def test_spelling_of_json_does_not_matter(net: Network, pod: Pod) -> None:
    """RFC 8259: blanks, escapes and the order of keys carry no meaning."""
    conf = net.conf()
    text = json.dumps(dict(reversed(conf.items())), indent=8)
    text = text.replace("cniVersion", "cni\\u0056ersion")
    request = replace(net.request("ADD", pod, conf), stdin=b"\r\n" + text.encode() + b"\r\n\r\n")
    assert net.run(request).result()["cniVersion"] == net.version
