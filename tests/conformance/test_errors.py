"""The error object and its codes (SPEC section 5 "Error")."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from .network import Network, Pod
from .request import Reply
from .spec import DECODE_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, UNSUPPORTED_FIELD

NO_VERSIONS = {
    "word": "abc",
    "one-number": "1",
    "two-numbers": "1.0",
    "blank-before": " 1.0.0",
    "blank-after": "1.0.0 ",
    "letter-before": "v1.0.0",
    "negative": "-1.0.0",
}


def some_error(net: Network, pod: Pod, version: str) -> Reply:
    """An ADD that cannot succeed in any plugin: there is no such namespace."""
    request = net.request("ADD", pod, net.conf(version))
    return net.run(replace(request, netns="/nonexistent/netns"))


def test_error_object(net: Network, pod: Pod, version: str) -> None:
    """Section 5, Error, and "Result" of 0.1.0 to 0.4.0: code and msg; exit status not 0."""
    some_error(net, pod, version).error()


def test_error_object_has_the_version(net: Network, pod: Pod, version: str) -> None:
    """Section 5, Error, cniVersion: "The protocol version in use" (SHOULD; 0.4.0: MUST)."""
    assert some_error(net, pod, version).error().get("cniVersion") == version


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_undeclared_version(net: Network, pod: Pod, undeclared_version: str, command: str) -> None:
    """Section 5, Error 1; 0.4.0 "Result": a version that VERSION does not list."""
    request = net.request(command, pod, net.conf(undeclared_version))
    with net.unchanged(pod):
        reply = net.run(request)
    reply.error(INCOMPATIBLE_VERSION)


@pytest.mark.parametrize("case", NO_VERSIONS)
def test_version_that_is_none(net: Network, pod: Pod, case: str) -> None:
    """Section 1, cniVersion: Semantic Version 2.0; section 5, Error 1, 6 or 7."""
    request = net.request("ADD", pod, net.conf(NO_VERSIONS[case]))
    with net.unchanged(pod):
        reply = net.run(request)
    reply.error(INCOMPATIBLE_VERSION, DECODE_FAILURE, INVALID_CONFIG)


def test_unknown_key(net: Network, pod: Pod) -> None:
    """Section 1, Other keys: accepted, or error 2 that MUST contain key and value."""
    conf = net.conf(conformanceKey="conformanceValue")
    reply = net.add(pod, conf=conf)
    if reply.failed():
        msg = reply.error(UNSUPPORTED_FIELD)["msg"]
        assert "conformanceKey" in msg, msg
        assert "conformanceValue" in msg, msg
    else:
        assert pod.space.addresses("eth0")


def test_arguments_in_the_configuration(net: Network) -> None:
    """0.4.0, args: "should be ignored by plugins if not understood" (SHOULD)."""
    args = {"cni": {"labels": [{"key": "app", "value": "x"}]}, "org.example/other": [1]}
    attachment = net.attach(conf=net.conf(args=args))
    assert attachment.addresses()


def test_errors_are_not_mixed_with_logs(net: Network, pod: Pod) -> None:
    """Section 5, Error: logs belong on stderr, stdout has the object alone."""
    reply = some_error(net, pod, net.version)
    assert json.loads(reply.stdout) == reply.error()
