"""Whatever values the keys have: an error names the key, and ADD has changed nothing."""

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugin.config import parse_config
from cni_plugin.errors import DECODING_FAILURE, INVALID_CONFIG, CniError
from cni_plugin.handle import Reply
from cni_plugin.request import NAME_MAX
from ipam.json_section import Section
from tests.unit.cni_plugin.calls import (
    CONFIG,
    TAKES_A_CONFIG,
    Node,
    answered,
    config,
    environment,
    refused,
    succeeded,
    with_node,
    words,
)

# One value of each JSON type; lists and objects hold what no key of podwire's may.
VALUES = {
    "boolean": True,
    "integer": 7,
    "fraction": 1.5,
    "string": "wrong",
    "list": [7],
    "object": {"a": 7},
}
STRINGS = ("name", "type", "bridge")
BOOLEANS = (
    "snat",
    "masqAll",
    "isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "hairpinMode", "promiscMode",
    "preserveDefaultVlan", "macspoofchk", "sourceCheck", "enabledad",
    "disableContainerInterface", "portIsolation",
)  # fmt: skip
OBJECTS = ("ipam", "dns", "args", "runtimeConfig", "prevResult")
RIGHT: dict[str, str] = {
    "cniVersion": "",
    "mode": "",
    "ipMasqBackend": "",
    "mtu": "integer",
    "vlan": "",
    "vlanTrunk": "",
    "allowedSourcePrefixes": "",
    "nonMasqueradeCIDRs": "",
    "cni.dev/valid-attachments": "",
    "ipam.type": "",
    "ipam.ranges": "",
    "ipam.routes": "",
    "ipam.dns": "object",
    "ipam.subnet": "",
    "ipam.rangeStart": "",
    "ipam.rangeEnd": "",
    "ipam.gateway": "",
    "ipam.resolvConf": "",
    "ipam.dataDir": "",
    "ipam.restPeriod": "number",
    "dns.nameservers": "",
    "dns.domain": "string",
    "dns.search": "",
    "dns.options": "",
    "args.cni": "object",
    "args.cni.mac": "",
    "args.cni.ips": "",
    "runtimeConfig.mac": "",
    "runtimeConfig.ips": "",
    "runtimeConfig.ipRanges": "",
    "runtimeConfig.dns": "object",
    "runtimeConfig.dns.servers": "",
    "runtimeConfig.dns.searches": "",
    "runtimeConfig.dns.options": "",
    "runtimeConfig.aliases": "",
    "runtimeConfig.portMappings": "",
    **dict.fromkeys(STRINGS, "string"),
    **dict.fromkeys(BOOLEANS, "boolean"),
    **dict.fromkeys(OBJECTS, "object"),
}
"""Every key, and which of VALUES is a right one; `number` is integer and fraction."""

NOT_TRIED = {"cni.dev/valid-attachments[0].containerID", "cni.dev/valid-attachments[0].ifname"}


def test_every_key_is_tried_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key that is read where all objects are there."""
    asked: set[str] = set()
    get = Section.get

    def record(section: Section, key: str) -> object:
        asked.add(section.name(key))
        return get(section, key)

    monkeypatch.setattr(Section, "get", record)
    parse_config({**CONFIG, "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "b"}]})
    known = {key for key in RIGHT if not key.startswith("ipam.")}
    assert known - asked == {"cniVersion", "name"}, "those are read before the others"
    assert asked - known == NOT_TRIED


def set_at(conf: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the key at a dotted path (cni.dev/... is one key) set."""
    head, dot, rest = path.partition(".") if not path.startswith("cni.dev") else (path, "", "")
    inner = conf.get(head)
    new = set_at(inner if isinstance(inner, dict) else {}, rest, value) if dot else value
    return {**conf, head: new}


def wrong_values() -> list[tuple[str, str]]:
    accepted = {"number": ("integer", "fraction")}
    return [
        (key, kind)
        for key, right in RIGHT.items()
        for kind in VALUES
        if kind not in accepted.get(right, (right,))
    ]


@pytest.mark.parametrize(("key", "kind"), wrong_values())
def test_a_wrong_type_is_refused_by_name(node: Node, key: str, kind: str) -> None:
    conf = set_at(config(), key, VALUES[kind])
    body = refused(node.call(environment(), conf))
    assert key.rpartition(".")[2] in words(body)
    assert node.is_untouched()


@pytest.mark.parametrize(("key", "kind"), wrong_values())
def test_a_wrong_type_does_not_upset_the_other_verbs(node: Node, key: str, kind: str) -> None:
    """They may have no use for the key: DEL goes by the record, not by the configuration."""
    conf = set_at(config(), key, VALUES[kind])
    for verb in ("DEL", "CHECK", "GC", "STATUS"):
        answered(node.call(environment(verb), conf))
    node.program = "podwire-ipam"
    for verb in TAKES_A_CONFIG:
        answered(node.call(environment(verb), conf))


ENOUGH_FOR_DEL = [key for key in RIGHT if key not in ("cniVersion", "name")]


@pytest.mark.parametrize("key", ENOUGH_FOR_DEL)
def test_what_was_added_can_be_deleted_with_a_wrong_configuration(node: Node, key: str) -> None:
    """Whatever was edited since: DEL goes by the record."""
    succeeded(node.call(environment(), CONFIG))
    kind = next(kind for wrong, kind in wrong_values() if wrong == key)
    env = environment("DEL")
    assert succeeded(node.call(env, set_at(config(), key, VALUES[kind]))) == {}
    again = succeeded(node.call(environment(), CONFIG))
    assert again["ips"][0]["address"] == "10.88.0.3/24", (
        "the freed address queues behind those never used"
    )
    assert succeeded(node.call(env, CONFIG)) == {}


WRONG_VALUES: list[tuple[str, Any]] = [
    ("name", ""),
    ("name", "a b"),
    ("name", "../../etc"),
    ("name", "-net"),
    ("name", "pod\0net"),
    ("name", "pödnet"),
    ("name", "a" * (NAME_MAX + 1)),
    ("name", "a" * 100_000),
    ("type", "../podwire"),
    ("bridge", ""),
    ("bridge", "a b"),
    ("bridge", "a/b"),
    ("bridge", "a:b"),
    ("bridge", ".."),
    ("bridge", "b%d"),
    ("bridge", "x" * 16),
    ("bridge", "cni\0"),
    ("bridge", "cni\x01"),
    ("bridge", "b\u00fc"),
    ("bridge", "all"),
    ("bridge", "default"),
    ("mtu", -1),
    ("mtu", 65536),
    ("mtu", 10**400),
    ("mtu", 1e308),
    ("vlan", 4095),
    ("mode", "ipvlan"),
    ("ipMasqBackend", "ebtables"),
    ("ipam", {}),
    ("ipam.type", "../podwire"),
    ("ipam.type", ".."),
    ("ipam.type", "no-such-plugin"),
    ("ipam.type", "a\0b"),
    ("ipam.type", "x" * 5000),
    ("ipam.subnet", "10.88.0.1/24"),
    ("ipam.subnet", "10.88.0.0/33"),
    ("ipam.subnet", "10.88.0.0/255.255.255.0"),
    ("ipam.subnet", "x" * 100_000),
    ("ipam.rangeStart", "10.89.0.1"),
    ("ipam.rangeEnd", "fd00::1"),
    ("ipam.gateway", "nowhere"),
    ("ipam.ranges", [[{"subnet": "10.88.0.0/24"}]]),
    ("ipam.ranges", [[]]),
    ("ipam.ranges", [[{}]]),
    ("ipam.routes", [{"dst": "nowhere"}]),
    ("ipam.routes", [{"gw": "10.88.0.1"}]),
    ("ipam.routes", [{"dst": "0.0.0.0/0", "mtu": 10**400}]),
    ("ipam.routes", [{"dst": "0.0.0.0/0", "table": -1}]),
    ("ipam.dataDir", "relative/path"),
    ("ipam.dataDir", "/a\0b"),
    ("ipam.resolvConf", "/nonexistent/resolv.conf"),
    ("ipam.resolvConf", "/a\0b"),
    ("ipam.restPeriod", -1),
    ("ipam.restPeriod", 1e400),
    ("ipam.restPeriod", "5 minutes"),
    ("runtimeConfig.mac", "02:00:00:00:00"),
    ("runtimeConfig.mac", "ff:ff:ff:ff:ff:ff"),
    ("runtimeConfig.mac", "00:00:00:00:00:00"),
    ("runtimeConfig.ips", ["10.99.0.5"]),
    ("runtimeConfig.ips", ["10.88.0.1"]),
    ("runtimeConfig.ips", ["wrong"]),
    ("runtimeConfig.portMappings", [{"hostPort": 0, "containerPort": 80}]),
    ("runtimeConfig.ips", ["10.88.0.5", "10.88.0.6"]),
    ("args.cni.mac", "01:00:5e:00:00:01"),
    ("args.cni.ips", ["10.88.0.5/33"]),
]


def send_at(node: Node, verb: str, key: str, value: Any) -> Reply:
    """A call with one key set; what Python calls infinity is a number too large for JSON's."""
    text = json.dumps(set_at(config(), key, value)).replace("Infinity", "1e400")
    return node.call(environment(verb), text.encode())


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES, ids=lambda v: repr(v)[:40])
def test_a_wrong_value_is_refused_by_name(node: Node, key: str, value: Any) -> None:
    body = refused(send_at(node, "ADD", key, value))
    assert key.rpartition(".")[2] in words(body)
    assert node.is_untouched()


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES, ids=lambda v: repr(v)[:40])
def test_a_wrong_value_does_not_upset_the_other_verbs(node: Node, key: str, value: Any) -> None:
    for program in ("podwire", "podwire-ipam"):
        node.program = program
        for verb in TAKES_A_CONFIG:
            answered(send_at(node, verb, key, value))


@pytest.mark.parametrize(
    ("conf", "keys"),
    [
        (config(name=None), ["name"]),
        (config(hairpinMode=True, promiscMode=True), ["hairpinMode", "promiscMode"]),
        (config(disableContainerInterface=True), ["disableContainerInterface", "ipam"]),
        (config(ipam=None), ["ipam"]),
        (config(ipam={"type": "podwire"}), ["ipam.subnet", "ipam.ranges"]),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_wrong_combinations_name_their_keys(
    node: Node, conf: dict[str, Any], keys: list[str]
) -> None:
    body = refused(node.call(environment(), conf))
    assert body["code"] == INVALID_CONFIG
    assert [key for key in keys if key not in words(body)] == []
    assert node.is_untouched()


RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/pod"}],
    "ips": [{"address": "10.88.0.2/24", "gateway": "10.88.0.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.88.0.1"}],
    "dns": {"nameservers": ["10.88.0.1"]},
}
WRONG_RESULTS: dict[str, Any] = {
    "interfaces of a number": {**RESULT, "interfaces": 7},
    "interface of a list": {**RESULT, "interfaces": [[]]},
    "interface MTU": {**RESULT, "interfaces": [{"name": "eth0", "mtu": {}}]},
    "endless MTU": {**RESULT, "interfaces": [{"name": "eth0", "mtu": 1e400}]},
    "address of a number": {**RESULT, "ips": [{"address": 7}]},
    "no address": {**RESULT, "ips": [{"address": "nowhere"}]},
    "gateway": {**RESULT, "ips": [{"address": "10.88.0.2/24", "gateway": "nowhere"}]},
    "index of a boolean": {**RESULT, "ips": [{"address": "10.88.0.2/24", "interface": False}]},
    "route without dst": {**RESULT, "routes": [{}]},
    "endless priority": {**RESULT, "routes": [{"dst": "0.0.0.0/0", "priority": 1e400}]},
    "dns of a list": {**RESULT, "dns": [7]},
    "unknown version": {**RESULT, "cniVersion": "9.9.9"},
    "version of a number": {**RESULT, "cniVersion": 7},
    "old shape of a string": {"cniVersion": "0.2.0", "ip4": "10.88.0.2/24"},
    "old shape without ip": {"cniVersion": "0.2.0", "ip4": {"gateway": "10.88.0.1"}},
}


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize("kind", WRONG_RESULTS)
def test_a_wrong_previous_result(node: Node, verb: str, kind: str) -> None:
    text = json.dumps(config(prevResult=WRONG_RESULTS[kind])).replace("Infinity", "1e400")
    body = refused(node.call(environment(verb), text.encode()))
    assert "prevResult" in words(body) or "version" in words(body).lower()
    assert node.is_untouched()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**63 - 2, 2**64 + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(("10.88.0.0/24", "10.88.0.5", "fd00::/64", "02:00:00:00:00:01", "1.0.0")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters, max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
# Never a dataDir: a wrong one that is accepted would be made.
PATHS = [key for key in RIGHT if key not in ("ipam.dataDir", "ipam.resolvConf")]


@settings(with_node, max_examples=150)
@given(
    st.dictionaries(st.sampled_from(PATHS), json_values, min_size=1, max_size=4),
    st.sampled_from(TAKES_A_CONFIG),
    st.sampled_from(("podwire", "podwire-ipam", "bridge", "ptp")),
)
def test_any_values_of_known_keys(
    node: Node, changes: dict[str, Any], verb: str, program: str
) -> None:
    conf = config()
    for path in sorted(changes):
        conf = set_at(conf, path, changes[path])
    node.program = program
    answered(node.call(environment(verb), conf))
    if verb == "ADD":
        answered(node.call(environment("DEL"), conf))


@settings(with_node, max_examples=100)
@given(st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_unknown_keys_are_tolerated(node: Node, more: dict[str, Any]) -> None:
    conf = {**{f"x{key}": value for key, value in more.items()}, **CONFIG}
    assert succeeded(node.call(environment("STATUS"), conf)) == {}


@settings(with_node, max_examples=100)
@given(st.text(st.characters(), max_size=5), st.sampled_from(TAKES_A_CONFIG))
def test_any_text_as_a_value(node: Node, text: str, verb: str) -> None:
    """Whole characters are tolerated where no meaning is sought, half ones nowhere."""
    is_whole = not any("\ud800" <= c <= "\udfff" for c in text)
    reply = node.call(environment("STATUS"), config(theirs=text))
    assert (reply.status == 0) == is_whole
    assert answered(reply).get("code") == (None if is_whole else DECODING_FAILURE)
    for key in ("name", "type", "bridge", "ipam", "ipam.type", "ipam.subnet", "args.cni.mac"):
        answered(node.call(environment(verb), set_at(config(), key, text)))


def test_what_a_pod_asks_for_does_not_reach_another_pod_of_its_network() -> None:
    network: dict[str, Any] = {"name": "net", "type": "podwire", "mtu": 1400}
    ports = [{"hostPort": 8080, "containerPort": 80}]
    limits = {"ingressRate": 8000, "ingressBurst": 8000}
    first = parse_config(network | {"runtimeConfig": {"portMappings": ports}})
    second = parse_config(network | {"runtimeConfig": {"bandwidth": limits}})
    third = parse_config(network)
    assert [m.host_port for m in first.port_map.mappings] == [8080]
    assert (second.port_map.mappings, [*second.features]) == ((), ["bandwidth"])
    assert (third.port_map.mappings, third.features) == ((), {})
    assert {first.mtu, second.mtu, third.mtu} == {1400}


def test_a_wrong_value_that_equals_a_right_one_is_refused_after_it() -> None:
    network: dict[str, Any] = {"name": "net", "type": "podwire", "runtimeConfig": {}}
    assert parse_config(network | {"mtu": 1}).mtu == 1
    with pytest.raises(CniError, match="mtu is True"):
        parse_config(network | {"mtu": True})
