"""Each error code, by a real cause of it."""

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import ipam.errors
from cni_plugin import errors
from cni_plugin.errors import CniError
from cni_plugin.names import host_link_name
from ipam.transaction import Owner
from tests.unit.cni_plugin.calls import (
    CONFIG,
    Node,
    config,
    encode,
    environment,
    refused,
    succeeded,
    words,
)

NEVER_SAID = {
    errors.UNKNOWN_CONTAINER,  # the store answers for containers that are gone
    errors.LIMITED_CONNECTIVITY,
    errors.INTERNAL,
}
Answer = dict[str, Any]
Cause = Callable[[Node, Path], Answer]
ONE_ADDRESS = {
    "type": "podwire",
    "subnet": "10.88.0.0/29",
    "rangeStart": "10.88.0.5",
    "rangeEnd": "10.88.0.5",
}


def ask(node: Node, verb: str, conf: Mapping[str, Any] = CONFIG, **env: str) -> Answer:
    return refused(node.call(environment(verb, **env), conf))


def attach(node: Node, conf: Mapping[str, Any] = CONFIG, **env: str) -> Answer:
    return succeeded(node.call(environment("ADD", **env), conf))


def of_ipam(node: Node) -> Node:
    node.program = "podwire-ipam"
    return node


def unknown_version(node: Node, _: Path) -> Answer:
    return ask(node, "ADD", config(cniVersion="9.0.0"))


def unsupported_key(node: Node, _: Path) -> Answer:
    return ask(node, "ADD", config(mode="bridge", vlan=100))


def wrong_environment(node: Node, _: Path) -> Answer:
    return ask(node, "ADD", CNI_IFNAME="a/b")


def data_dir_is_a_file(node: Node, folder: Path) -> Answer:
    (folder / "file").touch()
    node.data_dir = folder / "file"
    return ask(node, "ADD")


def no_resolv_conf(node: Node, folder: Path) -> Answer:
    section = {**CONFIG["ipam"], "resolvConf": str(folder / "none")}
    return ask(node, "ADD", config(ipam=section))


def not_json(node: Node, _: Path) -> Answer:
    return refused(node.call(environment(), b"{"))


def wrong_configuration(node: Node, _: Path) -> Answer:
    return ask(node, "ADD", config(mtu="large"))


def all_free_addresses_rest(node: Node, _: Path) -> Answer:
    conf = config(ipam={**ONE_ADDRESS, "restPeriod": 3600})
    attach(of_ipam(node), conf)
    succeeded(node.call(environment("DEL"), conf))
    return ask(node, "ADD", conf, CNI_CONTAINERID="container2")


def no_room_for_an_add(node: Node, _: Path) -> Answer:
    attach(of_ipam(node), config(ipam=ONE_ADDRESS))
    return ask(node, "STATUS", config(ipam=ONE_ADDRESS))


def range_is_full(node: Node, _: Path) -> Answer:
    attach(of_ipam(node), config(ipam=ONE_ADDRESS))
    return ask(node, "ADD", config(ipam=ONE_ADDRESS), CNI_CONTAINERID="container2")


def bridge_is_another_kind_of_link(node: Node, _: Path) -> Answer:
    attach(node)
    name = host_link_name(Owner("podnet", "container1", "eth0"))
    conf = config(mode="bridge", bridge=name)
    node.replace_pod(keep=True)
    answer = ask(node, "ADD", conf, CNI_CONTAINERID="container2")
    assert name in answer["msg"]
    return answer


def link_is_gone(node: Node, _: Path) -> Answer:
    result = attach(node)
    node.replace_pod(keep=True)
    answer = ask(node, "CHECK", config(prevResult=result))
    assert "eth0 is missing" in words(answer)
    return answer


def allocation_is_gone(node: Node, _: Path) -> Answer:
    result = attach(of_ipam(node))
    succeeded(node.call(environment("DEL"), CONFIG))
    return ask(node, "CHECK", config(prevResult=result))


def port_of_another_pod(node: Node, _: Path) -> Answer:
    mappings = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    conf = config(runtimeConfig={"portMappings": mappings})
    attach(node, conf)
    node.replace_pod(keep=True)
    return ask(node, "ADD", conf, CNI_CONTAINERID="container2")


def added_twice(node: Node, _: Path) -> Answer:
    attach(node)
    return ask(node, "ADD")


def allocated_twice(node: Node, _: Path) -> Answer:
    attach(of_ipam(node))
    return ask(node, "ADD")


def make_program(folder: Path, text: str) -> None:
    path = folder / "other-ipam"
    path.write_text(text)
    path.chmod(0o755)


def delegate_is_no_program(node: Node, folder: Path) -> Answer:
    make_program(folder, "\0 no program")
    return ask(node, "ADD", config(ipam={"type": "other-ipam"}), CNI_PATH=str(folder))


def delegate_dies(node: Node, folder: Path) -> Answer:
    make_program(folder, f"#!{sys.executable} -IS\nraise SystemExit(3)\n")
    return ask(node, "ADD", config(ipam={"type": "other-ipam"}), CNI_PATH=str(folder))


def requested_address_is_held(node: Node, _: Path) -> Answer:
    attach(of_ipam(node), CNI_ARGS="IP=10.88.0.9")
    return ask(node, "ADD", CNI_CONTAINERID="container2", CNI_ARGS="IP=10.88.0.9")


CAUSES: list[tuple[int, Cause]] = [
    (1, unknown_version),
    (2, unsupported_key),
    (4, wrong_environment),
    (5, data_dir_is_a_file),
    (5, no_resolv_conf),
    (6, not_json),
    (7, wrong_configuration),
    (11, all_free_addresses_rest),
    (50, no_room_for_an_add),
    (100, range_is_full),
    (101, bridge_is_another_kind_of_link),
    (102, link_is_gone),
    (102, allocation_is_gone),
    (103, added_twice),
    (103, allocated_twice),
    (104, delegate_is_no_program),
    (104, delegate_dies),
    (105, requested_address_is_held),
    (106, port_of_another_pod),
]


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize(("code", "cause"), CAUSES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_cause_has_its_code(node: Node, tmp_path: Path, code: int, cause: Cause) -> None:
    assert cause(node, tmp_path)["code"] == code
    assert not [line for line in node.log if "internal" in line]


def codes_of(module: Any) -> dict[str, int]:
    names = (name for name in vars(module) if name.isupper() and not name.startswith("_"))
    return {name: vars(module)[name] for name in names if type(vars(module)[name]) is int}


def test_every_code_has_a_cause() -> None:
    defined = {*codes_of(errors).values(), *codes_of(ipam.errors).values()}
    assert {code for code, _ in CAUSES} == defined - NEVER_SAID


def test_every_code_is_listed_once_and_in_order() -> None:
    own, of_ipam = codes_of(errors), codes_of(ipam.errors)
    assert len(set(own.values())) == len(own)
    assert of_ipam.items() <= own.items()
    assert list(errors.CODES) == sorted(own.values())


def test_an_error_reads_as_one_line() -> None:
    assert str(CniError(7, "mtu: 'x' is invalid")) == "mtu: 'x' is invalid"
    assert str(CniError(7, "mtu: 'x' is invalid", "network a")) == "mtu: 'x' is invalid: network a"


def test_a_delegates_own_error_comes_through(node: Node, tmp_path: Path) -> None:
    told = {"cniVersion": "1.1.0", "code": 11, "msg": "all is lent", "details": "come back"}
    script = f"import sys\nprint({json.dumps(told)!r})\nsys.exit(1)\n"
    make_program(tmp_path, f"#!{sys.executable} -IS\n{script}")
    answer = ask(node, "ADD", config(ipam={"type": "other-ipam"}), CNI_PATH=str(tmp_path))
    assert answer["code"] == 11
    assert "other-ipam" in answer["msg"]
    assert "all is lent" in answer["msg"]
    assert answer["details"] == "come back"


def test_a_delegate_hears_of_a_failed_add(node: Node, tmp_path: Path) -> None:
    """SPEC 1.1.0, section 4: on failure it is executed with DEL before the error is returned."""
    calls = tmp_path / "calls"
    script = f"""#!{sys.executable} -IS
import os, sys
with open({str(calls)!r}, "a") as file:
    print(os.environ["CNI_COMMAND"], os.environ["CNI_IFNAME"], len(sys.stdin.read()), file=file)
print('{{"cniVersion": "1.1.0", "ips": []}}')
"""
    make_program(tmp_path, script)
    conf = config(ipam={"type": "other-ipam"})
    answer = ask(node, "ADD", conf, CNI_PATH=str(tmp_path))
    assert "other-ipam" in answer["msg"]
    length = len(encode(conf))
    assert calls.read_text() == f"ADD eth0 {length}\nDEL eth0 {length}\n"


def test_a_bug_is_an_answer_too(node: Node) -> None:
    """Where even podwire itself is wrong: no traceback on stdout, and the place is logged."""

    def fail(_path: str) -> Any:
        raise ZeroDivisionError("a bug")

    reply = node.call(environment(), CONFIG, fail)
    body = json.loads(reply.stdout)
    assert (reply.status, body["code"]) == (1, errors.INTERNAL)
    assert "ZeroDivisionError: a bug" in body["msg"]
    assert "test_errors.py" in body["details"]
    assert "Traceback" not in reply.stdout.decode()
    assert [line for line in node.log if "internal error" in line and "test_errors.py" in line]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "x"), OSError(12, "x")])
def test_what_a_node_lacks_for_a_while_is_tried_again(node: Node, error: Exception) -> None:
    def fail(_path: str) -> Any:
        raise error

    reply = node.call(environment(), CONFIG, fail)
    assert (reply.status, json.loads(reply.stdout)["code"]) == (1, errors.TRY_AGAIN)


def test_descriptors_are_closed_after_failures(node: Node, tmp_path: Path) -> None:
    ask(node, "ADD", config(mtu="large"))
    attach(node)
    before = sorted(os.listdir("/proc/self/fd"))
    for cause in (added_twice_again, wrong_environment, not_json):
        cause(node, tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before


def added_twice_again(node: Node, _: Path) -> Answer:
    return ask(node, "ADD")
