"""JSON that other programs wrote is read by Go's rules, wherever podwire reads it: null is absent,
keys are taken in any case, and what no value depends on does not matter."""

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cni_plugin.calls import Node, config, environment, refused, succeeded

pytestmark = pytest.mark.usefixtures("no_links")
Body = dict[str, Any]
Change = Callable[[Body], None]


def at_ip(**keys: Any) -> Change:
    return lambda body: body["ips"][0].update(keys)


def at_pod(**keys: Any) -> Change:
    """Changes the pod's interface; there is none in what an IPAM plugin returns."""
    return lambda body: body.setdefault("interfaces", [{"name": "eth0"}])[-1].update(keys)


def at_top(**keys: Any) -> Change:
    return lambda body: body.update(keys)


def in_capitals(body: Body) -> None:
    body["IPs"] = [{key.title(): value for key, value in ip.items()} for ip in body.pop("ips")]


CASES: dict[str, Change] = {
    "as it is": lambda body: None,
    "an interface that is not listed": at_ip(interface=7),
    "a negative interface": at_ip(interface=-1),
    "no interface": at_ip(interface=None),
    "no gateway": at_ip(gateway=None),
    "an empty gateway": at_ip(gateway=""),
    "gateway 0.0.0.0": at_ip(gateway="0.0.0.0"),  # noqa: S104
    "a version of the address": at_ip(version=None),
    "null of the interface": at_pod(mac=None, mtu=None, socketPath=None, pciID=None),
    "MAC in capitals": lambda body: (
        at_pod(mac=str(body["interfaces"][-1]["mac"]).upper())(body)
        if "interfaces" in body
        else None
    ),
    "no routes": at_top(routes=None),
    "no DNS": at_top(dns=None),
    "null of DNS": at_top(dns={"nameservers": None, "domain": None, "search": None}),
    "unknown keys": at_top(more={"x": None}),
    "keys in capitals": in_capitals,
}
IPAM_ANSWER: Body = {
    "cniVersion": "1.1.0",
    "ips": [{"address": "10.88.0.9/24", "gateway": "10.88.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {},
}


def ipam_plugin(folder: Path, answer: Body) -> Body:
    """A configuration whose IPAM plugin gives this answer."""
    path = folder / "other-ipam"
    path.write_text(f"#!{sys.executable} -IS\nprint({json.dumps(answer)!r})\n")
    path.chmod(0o755)
    return config(ipam={"type": "other-ipam"})


@pytest.mark.parametrize("mode", ["ptp", "bridge"])
@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_an_ipam_plugins_answer(node: Node, tmp_path: Path, change: Change, mode: str) -> None:
    answer = deepcopy(IPAM_ANSWER)
    change(answer)
    conf = {**ipam_plugin(tmp_path, answer), "mode": mode, "bridge": "test0", "isGateway": True}
    result = succeeded(node.call(environment(CNI_PATH=str(tmp_path)), conf))
    assert [ip["address"] for ip in result["ips"]] == ["10.88.0.9/24"]
    assert result["ips"][0]["gateway"] == "10.88.0.1"
    checked = {**conf, "prevResult": result}
    succeeded(node.call(environment("CHECK", CNI_PATH=str(tmp_path)), checked))
    succeeded(node.call(environment("DEL", CNI_PATH=str(tmp_path)), checked))


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_the_result_of_the_chain(node: Node, change: Change) -> None:
    result = succeeded(node.call(environment(), config()))
    change(result)
    checked = config(prevResult=result)
    succeeded(node.call(environment("CHECK"), checked))
    succeeded(node.call(environment("DEL"), checked))


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_the_result_of_an_earlier_plugin(node: Node, change: Change) -> None:
    before = deepcopy(IPAM_ANSWER)
    change(before)
    result = succeeded(node.call(environment(), config(prevResult=before)))
    assert [ip["address"] for ip in result["ips"]] == ["10.88.0.9/24", "10.88.0.2/24"]
    assert result["ips"][1]["interface"] == len(result["interfaces"]) - 1
    assert "interface" not in result["ips"][0], "it names none of ours"


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_podwire_ipam(node: Node, change: Change) -> None:
    node.program = "podwire-ipam"
    result = succeeded(node.call(environment(), config()))
    change(result)
    succeeded(node.call(environment("CHECK"), config(prevResult=result)))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (at_ip(address=None), "prevResult.ips[0].address"),
        (at_ip(address="10.88.0.300/24"), "prevResult.ips[0].address"),
        (at_ip(interface="0"), "prevResult.ips[0].interface"),
        (at_pod(mac=5), "prevResult.interfaces[1].mac"),
        (at_pod(mtu=True), "prevResult.interfaces[1].mtu"),
        (at_top(routes=[{"dst": None}]), "prevResult.routes[0].dst"),
        (at_top(ips={}), "prevResult.ips"),
    ],
)
def test_what_is_wrong_is_named(node: Node, change: Change, place: str) -> None:
    result = succeeded(node.call(environment(), config()))
    change(result)
    body = refused(node.call(environment("CHECK"), config(prevResult=result)))
    assert body["code"] == 7
    assert place in body["details"]
    succeeded(node.call(environment("DEL"), config(prevResult=result)))
