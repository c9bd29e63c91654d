"""The environment as a Request, and whatever it holds: the message names the variable."""

import os
import string
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugin.errors import INVALID_ENVIRONMENT, CniError
from cni_plugin.request import NAME_MAX, link_name_fault, parse_request
from kernel.netns import open_namespace
from tests.unit.cni_plugin.calls import (
    CONFIG,
    ENVIRONMENT,
    VERBS,
    Node,
    answered,
    config,
    environment,
    refused,
    succeeded,
    with_node,
    words,
)

NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
    "VERSION": (),
}
"""SPEC 1.1.0, section 2: the variables that a verb cannot do without."""


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("missing", [name for name in ENVIRONMENT if name != "CNI_COMMAND"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_missing_variable(node: Node, verb: str, missing: str, how: str) -> None:
    env = environment(verb, **{missing: ""})
    if how == "absent":
        del env[missing]
    if missing in NEEDED[verb]:
        body = refused(node.call(env, CONFIG))
        assert body["code"] == INVALID_ENVIRONMENT
        assert missing in body["msg"]
        assert verb in body["msg"]
        assert node.is_untouched()
    else:
        body = answered(node.call(env, CONFIG))
        assert missing not in words({"msg": "", **body})


def test_all_that_is_missing_is_said_at_once(node: Node) -> None:
    body = refused(node.call({"CNI_COMMAND": "ADD"}, CONFIG))
    assert [name for name in NEEDED["ADD"] if name not in body["msg"]] == []


COMMANDS = (
    "",
    "add",
    " ADD",
    "ADD ",
    "ADD\n",
    "ADDDEL",
    "UPDATE",
    "-h",
    "\udcff",
    "ADD\0",
    "A" * 9999,
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: repr(c)[:20])
def test_a_wrong_command(node: Node, command: str) -> None:
    for stdin in (CONFIG, b""):
        body = refused(node.call(environment(command), stdin))
        assert body["code"] == INVALID_ENVIRONMENT
        assert "CNI_COMMAND" in body["msg"]
    assert node.is_untouched()


def test_no_environment_at_all(node: Node) -> None:
    body = refused(node.call({}, CONFIG))
    assert "CNI_COMMAND" in body["msg"]


ABSURD = {
    "CNI_CONTAINERID": (
        " ", "a b", "../../etc", "a/b", "-a", ".a", "_a", "a\n", "\na", "a\0", "é", "\udcff", "a;b",
        "$(reboot)", "a=b", "a" * (NAME_MAX + 1), "a" * 100_000,
    ),
    "CNI_IFNAME": (
        " ", "a b", "a/b", ".", "..", "a:b", "eth%d", "a\n", "a\0", "a\t", "\x01", "é", "\udcff",
        "x" * 16, "x" * 100_000, "lo", "all", "default",
    ),
    "CNI_NETNS": ("relative", "./ns", "ns:[4026531840]", "/a\0b", "/" + "x" * 5000),
    "CNI_ARGS": (
        "a", "=", "=x", "K8S_POD_NAME", "IP=10.88.0.5;x", "Unknown=1", "a=1;b=2",
        "Unknown=1;IgnoreUnknown=0", "IgnoreUnknown=yes", "IgnoreUnknown=", "K8S_POD_NAME=a b",
        "K8S_POD_NAMESPACE=-", "K8S_POD_UID=a/b", "K8S_POD_NAME=" + "x" * 254,
        "K8S_POD_NAME=a\nb", "K8S_POD_NAME=\udcff", "MAC=nonsense", "MAC=ff:ff:ff:ff:ff:ff",
        "MAC=02:00:00:00:00", "IP=nonsense", "IP=10.99.0.5", "IP=10.88.0.5/33", "IP=\udcff",
        "x" * 100_000, ";" * 1000 + "x",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value"),
    [(name, value) for name, values in ABSURD.items() for value in values],
    ids=lambda v: repr(v)[:30],
)
def test_an_absurd_value_is_refused_by_name(node: Node, variable: str, value: str) -> None:
    body = refused(node.call(environment(**{variable: value}), CONFIG))
    assert body["code"] == INVALID_ENVIRONMENT
    assert variable in words(body)
    assert node.is_untouched()
    for verb in VERBS:
        answered(node.call(environment(verb, **{variable: value}), CONFIG))


def absent(path: Path) -> None:
    assert not path.exists()


NO_NAMESPACES: dict[str, Callable[[Path], object]] = {
    "absent": absent,
    "file": Path.touch,
    "folder": Path.mkdir,
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/null"),
    "another kind of namespace": lambda path: path.symlink_to("/proc/self/ns/uts"),
}


@pytest.mark.parametrize("kind", NO_NAMESPACES)
def test_a_netns_that_is_none(node: Node, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "netns"
    NO_NAMESPACES[kind](path)
    for verb in ("ADD", "CHECK"):
        conf = config(prevResult={"cniVersion": "1.1.0", "ips": []})
        env = environment(verb, CNI_NETNS=str(path))
        body = refused(node.call(env, conf, open_namespace))
        assert body["code"] == INVALID_ENVIRONMENT
        assert "CNI_NETNS" in body["msg"]
        assert str(path) in words(body)
        assert node.is_untouched()
    assert (
        succeeded(node.call(environment("DEL", CNI_NETNS=str(path)), CONFIG, open_namespace)) == {}
    )


def test_the_nodes_own_namespace_is_no_pods(node: Node) -> None:
    env = environment(CNI_NETNS="/proc/thread-self/ns/net")
    body = refused(node.call(env, CONFIG, open_namespace))
    assert body["code"] == INVALID_ENVIRONMENT
    assert "CNI_NETNS" in body["msg"]
    assert node.is_untouched()


NAMES_OF_PODS = st.text(
    string.ascii_letters + string.digits + "-._:", min_size=1, max_size=20
).filter(lambda name: name[0].isalnum())
KNOWN = {
    "IP": st.sampled_from(("10.88.0.5", "fd00::5", "10.88.0.5/24")),
    "MAC": st.just("02:00:00:00:00:05"),
    "K8S_POD_NAMESPACE": NAMES_OF_PODS,
    "K8S_POD_NAME": NAMES_OF_PODS,
    "K8S_POD_INFRA_CONTAINER_ID": NAMES_OF_PODS,
    "K8S_POD_UID": NAMES_OF_PODS,
}
UNKNOWN_KEYS = st.text(string.ascii_letters, min_size=1, max_size=8).filter(
    lambda key: key not in KNOWN and key != "IgnoreUnknown"
)
UNKNOWN_PAIRS = st.dictionaries(
    UNKNOWN_KEYS, st.text(string.printable.replace(";", ""), max_size=9), max_size=3
)


@settings(max_examples=100)
@given(st.fixed_dictionaries({}, optional=KNOWN), UNKNOWN_PAIRS, st.randoms(), st.booleans())
def test_arguments_are_read_as_pairs(
    known: dict[str, str], unknown: dict[str, str], order: Random, ignore: bool
) -> None:
    pairs = [*known.items(), *unknown.items(), *([("IgnoreUnknown", "1")] if ignore else [])]
    order.shuffle(pairs)
    env = environment(CNI_ARGS=";".join(f"{key}={value}" for key, value in pairs))
    if unknown and not ignore:
        with pytest.raises(CniError, match=r"CNI_ARGS.*IgnoreUnknown") as caught:
            parse_request(env)
        assert caught.value.code == INVALID_ENVIRONMENT
        return
    request = parse_request(env)
    assert {k: v for k, v in request.args.items() if k != "IgnoreUnknown"} == known
    namespace, name = known.get("K8S_POD_NAMESPACE", ""), known.get("K8S_POD_NAME")
    assert request.pod == ("" if name is None else f"{namespace}/{name}")


@pytest.mark.parametrize(
    ("text", "ignored"),
    [("1", True), ("true", True), ("True", True), ("0", False), ("false", False), ("FALSE", False)],
)
def test_spellings_of_ignore_unknown(text: str, ignored: bool) -> None:
    env = environment(CNI_ARGS=f"IgnoreUnknown={text};Theirs=1")
    if ignored:
        assert "Theirs" not in parse_request(env).args
    else:
        with pytest.raises(CniError, match="Theirs"):
            parse_request(env)


@given(st.lists(st.text(string.ascii_letters + "/.", max_size=8), max_size=5))
def test_only_absolute_folders_of_the_path_are_searched(folders: list[str]) -> None:
    request = parse_request(environment(CNI_PATH=":".join(folders)))
    assert list(request.path) == [folder for folder in folders if folder[:1] == "/"]


@settings(with_node, max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from([*ENVIRONMENT, "CNI_ARGS", "CNI_NETNS_OVERRIDE"]),
        st.text(st.characters(), max_size=20) | st.sampled_from(VERBS),
        max_size=4,
    ),
    st.sampled_from(VERBS),
)
def test_any_environment(node: Node, changes: dict[str, str], verb: str) -> None:
    env = environment(verb, **changes)
    reply = node.call(env, CONFIG)
    if reply.status != 0 and env["CNI_COMMAND"] not in ("CHECK", "GC"):
        assert refused(reply)["code"] == INVALID_ENVIRONMENT
        assert "CNI_" in words(refused(reply))
    answered(reply)
    node.replace_pod()


PRINTABLE = st.text(st.characters(min_codepoint=1, max_codepoint=0x17F), min_size=1, max_size=16)


@settings(with_node, max_examples=30)
@given(st.text(string.printable[:94], min_size=1, max_size=15) | PRINTABLE)
def test_the_kernel_takes_every_name_that_passes(node: Node, name: str) -> None:
    """And what it would refuse is refused as what it is: a wrong CNI_IFNAME."""
    reply = node.call(environment(CNI_IFNAME=name), CONFIG)
    if link_name_fault(name):
        assert "CNI_IFNAME" in words(refused(reply))
    else:
        assert succeeded(reply)["interfaces"][-1]["name"] == name
        assert succeeded(node.call(environment("DEL", CNI_IFNAME=name), CONFIG)) == {}
