"""Environment variables (SPEC section 2 "Parameters", section 5 "Error" code 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from .network import IFNAME, Network, Pod
from .spec import INVALID_ENVIRONMENT as CODE

# SPEC section 2: "Required environment parameters" of each verb.
REQUIRED = [
    ("ADD", "CNI_CONTAINERID"),
    ("ADD", "CNI_NETNS"),
    ("ADD", "CNI_IFNAME"),
    ("DEL", "CNI_CONTAINERID"),
    ("DEL", "CNI_IFNAME"),
    pytest.param("CHECK", "CNI_CONTAINERID", marks=pytest.mark.cni_needs("CHECK")),
    pytest.param("CHECK", "CNI_NETNS", marks=pytest.mark.cni_needs("CHECK")),
    pytest.param("CHECK", "CNI_IFNAME", marks=pytest.mark.cni_needs("CHECK")),
    pytest.param("GC", "CNI_PATH", marks=pytest.mark.cni_needs("GC")),
]
FIELDS = {
    "CNI_COMMAND": "command",
    "CNI_CONTAINERID": "container_id",
    "CNI_NETNS": "netns",
    "CNI_IFNAME": "ifname",
    "CNI_PATH": "path",
}
# SPEC section 2, CNI_CONTAINERID: alphanumeric first, then also underscore, dot, hyphen.
BAD_IDS = {
    "hyphen-first": "-a",
    "dot-first": ".a",
    "underscore-first": "_a",
    "parent": "../a",
    "slash": "a/b",
    "space": "a b",
    "colon": "a:b",
    "newline-inside": "a\nb",
    "newline-last": "a\n",
    "semicolon": "a;b",
    "letter-not-ascii": "a\u00e9",
    "digit-not-ascii": "\u0663a",
    "not-utf8": "a\udcff",
}
GOOD_IDS = {
    "one-digit": "0",
    "mixed": "A.b-c_D",
    "sixty-four": "0123456789abcdef" * 4,
    "long": "x" * 200,
}
# What no Linux interface can be called (linux/net/core/dev.c, dev_valid_name).
BAD_IFNAMES = {
    "sixteen": "a23456789abcdef0",
    "slash": "a/b",
    "colon": "a:b",
    "dot": ".",
    "dots": "..",
    "space": "a b",
    "tab": "a\tb",
    "newline": "a\n",
}
GOOD_IFNAMES = ("x", "a23456789abcdef", "net.1-x_y", "0")
KUBERNETES = (
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;"
    "K8S_POD_INFRA_CONTAINER_ID=5f3a;K8S_POD_UID=0b6e8a4e-9d5c-4c8a-8d4e-3f0b8c1d2e3f"
)
ATTACHMENT_VERBS = ["ADD", "DEL", pytest.param("CHECK", marks=pytest.mark.cni_needs("CHECK"))]


def refused(net: Network, pod: Pod, command: str | None, **changes: Any) -> str:
    """Calls with *changes* of the request; asserts error 4, nothing changed; returns msg."""
    request = net.request(command or "ADD", pod, net.conf())
    with net.unchanged(pod):
        reply = net.run(replace(request, command=command, **changes))
    return str(reply.error(CODE)["msg"])


@pytest.mark.parametrize("value", [None, ""], ids=("unset", "empty"))
@pytest.mark.parametrize(("command", "variable"), REQUIRED)
def test_required_variable(
    net: Network, pod: Pod, command: str, variable: str, value: str | None
) -> None:
    """Section 2, per verb; section 5, Error 4: the message MUST name the variable."""
    msg = refused(net, pod, command, **{FIELDS[variable]: value})
    assert variable in msg, msg


def test_all_missing_variables_are_named(net: Network, pod: Pod) -> None:
    """Section 5, Error 4: "must contain the names of invalid variables"."""
    msg = refused(net, pod, "ADD", container_id=None, netns=None, ifname=None)
    for variable in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
        assert variable in msg, msg


@pytest.mark.parametrize(
    "command", ["FROB", "add", "ADD "], ids=("word", "lower-case", "blank-after")
)
def test_unknown_command(net: Network, pod: Pod, command: str) -> None:
    """Section 2, CNI operations; section 5, Error 4."""
    assert "CNI_COMMAND" in refused(net, pod, command)


@pytest.mark.parametrize("command", [None, ""], ids=("unset", "empty"))
def test_missing_command(net: Network, pod: Pod, command: str | None) -> None:
    """Section 2, every verb: CNI_COMMAND is required; section 5, Error 4."""
    assert "CNI_COMMAND" in refused(net, pod, command)


@pytest.mark.parametrize("command", ATTACHMENT_VERBS)
@pytest.mark.parametrize("case", BAD_IDS)
def test_invalid_container_id(net: Network, pod: Pod, command: str, case: str) -> None:
    """Section 2, CNI_CONTAINERID: its characters; section 5, Error 4."""
    refused(net, pod, command, container_id=BAD_IDS[case])


def test_invalid_container_id_is_named(net: Network, pod: Pod) -> None:
    """Section 5, Error 4: the message MUST name CNI_CONTAINERID."""
    assert "CNI_CONTAINERID" in refused(net, pod, "ADD", container_id="a/b")


@pytest.mark.parametrize("case", GOOD_IDS)
def test_valid_container_id(net: Network, case: str) -> None:
    """Section 2, CNI_CONTAINERID: each such name is one."""
    pod = replace(net.pod(), container_id=GOOD_IDS[case])
    attachment = net.attach(pod)
    assert attachment.addresses()
    net.delete(attachment).silent()
    assert IFNAME not in pod.space.link_names()


@pytest.mark.parametrize("command", ATTACHMENT_VERBS)
@pytest.mark.parametrize("case", BAD_IFNAMES)
def test_invalid_ifname(net: Network, pod: Pod, command: str, case: str) -> None:
    """0.4.0 "Parameters": Linux's restrictions; section 2, CNI_IFNAME; Error 4."""
    refused(net, pod, command, ifname=BAD_IFNAMES[case])


def test_invalid_ifname_is_named(net: Network, pod: Pod) -> None:
    """Section 5, Error 4: the message MUST name CNI_IFNAME."""
    assert "CNI_IFNAME" in refused(net, pod, "ADD", ifname="a/b")


@pytest.mark.parametrize("ifname", GOOD_IFNAMES)
def test_valid_ifname(net: Network, ifname: str) -> None:
    """Section 2, CNI_IFNAME: the interface has exactly this name."""
    attachment = net.attach(ifname=ifname)
    assert attachment.pod.space.link_names() == {"lo", ifname}
    assert attachment.addresses()
    net.delete(attachment).silent()
    assert attachment.pod.space.link_names() == {"lo"}


def test_ifname_is_no_template(net: Network, pod: Pod) -> None:
    """Section 2, CNI_IFNAME: that name or an error; the kernel would make eth0 of eth%d."""
    failed = net.add(pod, "eth%d").failed()
    assert pod.space.link_names() == ({"lo"} if failed else {"lo", "eth%d"})


def test_container_id_is_named_by_delete(net: Network, pod: Pod) -> None:
    """Section 5, Error 4, for DEL."""
    assert "CNI_CONTAINERID" in refused(net, pod, "DEL", container_id="../a")


@pytest.mark.parametrize(
    "args",
    ["IgnoreUnknown=1;CONF_TEST=1", KUBERNETES, ""],
    ids=("one", "kubernetes", "empty"),
)
def test_args_that_may_be_ignored(net: Network, pod: Pod, args: str) -> None:
    """Section 2, CNI_ARGS: pairs for any plugin; IgnoreUnknown is the runtimes' custom."""
    net.run(replace(net.request("ADD", pod, net.conf()), args=args)).result()
    assert pod.space.addresses(IFNAME)


@pytest.mark.parametrize(
    "args",
    ["CONF_TEST=1", "FOO", "=;;=", "IP=", "A=b=c"],
    ids=("unknown", "no-value", "separators", "empty-value", "two-equals"),
)
def test_args_that_may_be_refused(net: Network, pod: Pod, args: str) -> None:
    """Section 2, CNI_ARGS: success, or one error object with nothing left behind."""
    net.attach()  # so that what all pods share exists
    with net.unchanged(pod, ignore=("lo", IFNAME)):
        request = replace(net.request("ADD", pod, net.conf()), args=args)
        if not net.run(request).failed():
            net.run(replace(request, command="DEL")).ok()
    assert IFNAME not in pod.space.link_names()
