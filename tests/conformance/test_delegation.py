"""Delegation to an IPAM plugin (SPEC section 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from .netconf import with_ipam
from .network import IFNAME, Attachment, Network, Pod
from .request import Reply, Request
from .shapes import addresses
from .stub import Stub

pytestmark = pytest.mark.cni_needs("ipam")
Json = dict[str, Any]
LATER = [
    "DEL",
    pytest.param("CHECK", marks=pytest.mark.cni_needs("CHECK")),
    pytest.param("GC", marks=pytest.mark.cni_needs("GC")),
    pytest.param("STATUS", marks=pytest.mark.cni_needs("STATUS")),
]


def request(net: Network, stub: Stub, command: str, pod: Pod | None, **keys: Any) -> Request:
    """A call with the stub as IPAM plugin, found through CNI_PATH."""
    conf = with_ipam(net.conf(**keys), stub.name)
    made = net.request(command, pod, conf)
    return replace(made, path=f"{stub.folder}:{net.cni_path}", args="IgnoreUnknown=1;FOO=BAR")


def attach(net: Network, stub: Stub, pod: Pod, version: str | None = None) -> Attachment:
    made = request(net, stub, "ADD", pod, version=version)
    conf = with_ipam(net.conf(version), stub.name)
    return Attachment(pod, made, conf, net.run(made).result())


def call(net: Network, stub: Stub, command: str, attachment: Attachment) -> Reply:
    """DEL, CHECK, GC or STATUS after an ADD."""
    if command in ("DEL", "CHECK"):
        return net.run(request(net, stub, command, attachment.pod, prevResult=attachment.result))
    valid = [{"containerID": attachment.pod.container_id, "ifname": IFNAME}]
    keys = {"cni.dev/valid-attachments": valid} if command == "GC" else {}
    return net.run(request(net, stub, command, None, **keys))


def test_delegated_address(net: Network, stub: Stub, pod: Pod, version: str) -> None:
    """Section 4: the IPAM plugin's address is applied and in the result, in each version."""
    stub.hands_out(version, "10.88.0.7/24", "10.88.0.1")
    attachment = attach(net, stub, pod, version)
    assert addresses(attachment.result) == {"10.88.0.7/24"}
    assert attachment.addresses()


def test_delegated_environment(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 4: it "must receive all the same environment variables"."""
    attachment = attach(net, stub, pod)
    assert stub.environment("ADD") == attachment.request.environment()


def test_delegated_configuration(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 4: "the complete network configuration", not just ipam, unknown keys too."""
    labels = {"cni": {"labels": [{"key": "a", "value": "b"}]}}
    made = request(net, stub, "ADD", pod, args=labels)
    net.run(made).result()
    assert stub.stdin("ADD") == with_ipam(net.conf(args=labels), stub.name)


def test_delegated_stderr(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 4: the delegated plugin's stderr goes to the caller's stderr (SHOULD)."""
    reply = net.run(request(net, stub, "ADD", pod))
    reply.result()
    assert b"stub speaks on stderr" in reply.stderr, reply


def test_delegated_plugin_is_searched_in_order(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 4: "searching the directories provided in CNI_PATH", the first one wins."""
    second = Stub(stub.folder.parent / "second")
    second.install()
    made = request(net, stub, "ADD", pod)
    net.run(replace(made, path=f"/nonexistent:{made.path}:{second.folder}")).result()
    assert stub.calls()
    assert not second.calls()


@pytest.mark.parametrize("command", LATER)
def test_delegated_verb(net: Network, stub: Stub, pod: Pod, command: str) -> None:
    """Section 4 and section 2: each verb MUST be passed on to delegated plugins."""
    attachment = attach(net, stub, pod)
    call(net, stub, command, attachment).silent()
    assert stub.calls() == ["ADD", command]
    conf = with_ipam(net.conf(), stub.name)
    assert stub.stdin(command).items() >= conf.items()


@pytest.mark.parametrize("command", LATER)
def test_delegated_error(net: Network, stub: Stub, pod: Pod, command: str) -> None:
    """Section 4: an error of a delegated plugin "should be returned by the upper plugin"."""
    attachment = attach(net, stub, pod)
    stub.fails(command, net.version, 100, "pool is on strike")
    call(net, stub, command, attachment).error()


@pytest.mark.cni_needs("GC")
def test_delegated_valid_attachments(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 2, GC: "forward any GC calls", so with the list of valid attachments."""
    call(net, stub, "GC", attach(net, stub, pod)).silent()
    assert stub.stdin("GC")["cni.dev/valid-attachments"] == [
        {"containerID": pod.container_id, "ifname": IFNAME}
    ]


def test_delegated_previous_result(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 4: the configuration of DEL is complete: prevResult is passed on verbatim."""
    attachment = attach(net, stub, pod)
    call(net, stub, "DEL", attachment).silent()
    assert stub.stdin("DEL")["prevResult"] == attachment.result


@pytest.mark.parametrize("code", [11, 123])
def test_delegated_add_fails(net: Network, stub: Stub, pod: Pod, code: int) -> None:
    """Section 4: error out, with the delegated plugin's code and words (SHOULD)."""
    stub.fails("ADD", net.version, code, "pool is on strike")
    assert "pool is on strike" in net.run(request(net, stub, "ADD", pod)).error(code)["msg"]


def test_delegated_add_fails_and_is_undone(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 4: on a failed ADD "the upper plugin should execute again with DEL" (SHOULD)."""
    stub.fails("ADD", net.version, 11, "pool is on strike")
    net.run(request(net, stub, "ADD", pod)).error()
    assert stub.calls() == ["ADD", "DEL"]


REPLIES = {
    "nothing": "",
    "no-json": "hello",
    "array": "[]",
    "no-version": "{}",
    "ips": '{"ips": 5}',
}


@pytest.mark.parametrize("case", REPLIES)
def test_delegated_add_answers_nonsense(net: Network, stub: Stub, pod: Pod, case: str) -> None:
    """Section 4: success is "a zero return code and a Success result"; else an error."""
    stub.answers("ADD", REPLIES[case])
    net.run(request(net, stub, "ADD", pod)).error()


@pytest.mark.parametrize("case", ["fails", "nonsense", "missing"])
def test_delegated_add_leaves_nothing(net: Network, stub: Stub, pod: Pod, case: str) -> None:
    """Section 2, ADD: a failed ADD leaves neither interface nor host side behind (SHOULD)."""
    net.attach()  # so that what all pods share exists
    made = request(net, stub, "ADD", pod)
    if case == "fails":
        stub.fails("ADD", net.version, 11, "pool is on strike")
    elif case == "nonsense":
        stub.answers("ADD", "hello")
    else:
        (stub.folder / stub.name).unlink()
    with net.unchanged(pod):
        net.run(made).error()


@pytest.mark.parametrize("kind", ["parent", "absolute", "here"])
def test_delegated_type_is_a_file_name(net: Network, stub: Stub, pod: Pod, kind: str) -> None:
    """Section 1, ipam.type: "Must not contain characters disallowed in file paths"."""
    folder = {"parent": f"../{stub.folder.name}", "absolute": str(stub.folder), "here": "."}
    conf = with_ipam(net.conf(), f"{folder[kind]}/{stub.name}")
    made = replace(net.request("ADD", pod, conf), path=f"{stub.folder}:{net.cni_path}")
    net.run(made).error()
    assert not stub.calls()


def test_delete_where_the_delegated_plugin_is_gone(net: Network, stub: Stub, pod: Pod) -> None:
    """Section 4: an error, as the reservation cannot be released; the interface may be gone."""
    attachment = attach(net, stub, pod)
    (stub.folder / stub.name).unlink()
    call(net, stub, "DEL", attachment).error()
