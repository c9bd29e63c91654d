"""`tuning` behind podwire and behind the reference's bridge, compared with the reference `tuning`.

Two differences are deliberate (`tests/netns/tuning`): an MTU that a result has is changed with the
link's, and a MAC is in results as the kernel writes it, however the configuration does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.differential.conftest import DEBIAN_REFERENCE
from tests.pytest_netns import CniResult, Namespace, Node

MakePod = Callable[[], Namespace]
MAC, OTHER_MAC = "02:11:22:33:44:55", "02:66:77:88:99:aa"
SETTINGS = {
    "net.ipv4.conf.IFNAME.log_martians": "1",
    "net/ipv6/conf/IFNAME/accept_ra": "0",
    "net.core.somaxconn": "512",
    "net.ipv4.ip_local_port_range": "2000\t2100",
}
WATCHED = (
    *("ipv4/conf/eth0/log_martians", "ipv6/conf/eth0/accept_ra", "core/somaxconn"),
    *("ipv4/ip_local_port_range", "ipv4/conf/eth0/rp_filter", "ipv4/conf/eth0.5/rp_filter"),
)
TRAITS = ("mtu", "txqlen", "promiscuity", "allmulti", "address")


@dataclass(frozen=True)
class Case:
    """A configuration. code: podwire's error; every error of the reference is of one code."""

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    args: str = ""
    code: int = 0
    newest_only: bool = False
    version: str = "1.0.0"
    damage: str = ""
    """What CHECK must find: a command of `ip`."""


CASES = (
    Case("nothing"),
    Case("sysctl", {"sysctl": SETTINGS}),
    Case("mac", {"mac": MAC}, damage=f"link set eth0 address {OTHER_MAC}"),
    Case("mac-argument", {"mac": OTHER_MAC}, args=f"IgnoreUnknown=1;MAC={MAC}"),
    Case(
        "mac-capability",
        {"mac": OTHER_MAC, "runtimeConfig": {"mac": MAC}},
        args=f"MAC={OTHER_MAC}",
    ),
    Case(
        "mac-in-args",
        {"args": {"cni": {"mac": MAC}}, "runtimeConfig": {"mac": OTHER_MAC}},
        args=f"MAC={OTHER_MAC}",
    ),
    Case("mtu", {"mtu": 1400}, damage="link set eth0 mtu 1399"),
    Case("mtu-without-ipv6", {"mtu": 1000}),
    Case("promisc", {"promisc": True}, damage="link set eth0 promisc off"),
    Case("allmulti", {"allmulti": True}, damage="link set eth0 allmulticast off"),
    Case("no-allmulti", {"allmulti": False}, damage="link set eth0 allmulticast on"),
    Case("queue", {"txQLen": 500}, newest_only=True, damage="link set eth0 txqueuelen 7"),
    Case("no-queue", {"txQLen": 0}, newest_only=True),
    Case(
        "args",
        {
            "sysctl": {"net.core.somaxconn": "100", "net.ipv4.conf.IFNAME.rp_filter": "2"},
            "mtu": 1300,
            "promisc": True,
            "args": {
                "cni": {
                    "sysctl": {"net.core.somaxconn": "512"},
                    "mtu": 1400,
                    "promisc": False,
                    "allmulti": True,
                }
            },
        },
    ),
    Case(
        "queue-in-args",
        {"txQLen": 1, "args": {"cni": {"txQLen": 500}}},
        newest_only=True,
    ),
    Case(
        "everything",
        {"sysctl": SETTINGS, "mac": MAC, "mtu": 1400, "promisc": True, "allmulti": True},
        damage="link set eth0 mtu 1399",
    ),
    Case("version-0.3.1", {"mac": MAC, "mtu": 1400}, version="0.3.1"),
    Case("version-1.1.0", {"mac": MAC, "mtu": 1400}, version="1.1.0", newest_only=True),
    Case("elsewhere", {"sysctl": {"kernel.hostname": "x"}}, code=7),
    Case("out-of-net", {"sysctl": {"net/../kernel/hostname": "x"}}, code=101),
    Case("no-such-setting", {"sysctl": {"net.ipv4.no_such": "1"}}, code=101),
    Case("refused-value", {"sysctl": {"net.ipv4.ip_forward": "x"}}, code=101),
    Case("a-number", {"sysctl": {"net.core.somaxconn": 512}}, code=7),
    Case("bad-mac", {"mac": "02:11"}, code=7),
    Case("multicast-mac", {"sysctl": SETTINGS, "mac": "01:00:5e:00:00:01"}, code=101),
    Case("small-mtu", {"sysctl": SETTINGS, "mac": MAC, "promisc": True, "mtu": 10}, code=101),
    Case("mtu-as-text", {"mtu": "1400"}, code=7),
    Case("unknown-argument", {"mtu": 1400}, args="X=1", code=4),
)


def state(pod: Namespace, known: dict[str, str]) -> dict[str, Any]:
    """What `tuning` may change; addresses of the pod by the names that `known` gives them."""
    [link] = pod.ip("-d link show eth0")
    found = {trait: link.get(trait) for trait in TRAITS}
    found["flags"] = sorted({"UP", "PROMISC", "ALLMULTI"} & set(link["flags"]))
    found["settings"] = pod.call(lambda: {name: _read(name) for name in WATCHED})
    [addresses] = pod.ip("address show eth0")
    found["addresses"] = sorted(
        info["family"] for info in addresses["addr_info"] if info["scope"] == "global"
    )
    return {
        key: known.get(value, value) if isinstance(value, str) else value
        for key, value in found.items()
    }


def _read(name: str) -> str | None:
    path = Path("/proc/sys/net", name)
    return path.read_text(encoding="ascii").strip() if path.exists() else None


def _conf(kind: str, version: str, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "net", "type": kind, **keys}


def _main(version: str) -> dict[str, Any]:
    ranges = [[{"subnet": "10.20.0.0/24"}], [{"subnet": "2001:db8:20::/64"}]]
    keys: dict[str, Any] = {"isGateway": True, "ipam": {"type": "host-local", "ranges": ranges}}
    return _conf("bridge", version, **keys)


@dataclass
class Chain:
    """A pod's attachment by one plugin, and `tuning` by another."""

    node: Node
    main: Path
    tuning: Path
    pod: Namespace
    case: Case
    container: str
    result: dict[str, Any] = field(default_factory=dict)

    def attach(self) -> None:
        first = self.node.cni(
            "ADD",
            self.main / "bridge",
            _main(self.case.version),
            netns=self.pod.path,
            container_id=self.container,
        )
        assert first.code == 0, first
        self.result = first.json

    def tune(self, verb: str) -> CniResult:
        conf = _conf("tuning", self.case.version, prevResult=self.result, **self.case.keys)
        return self.node.cni(
            verb,
            self.tuning / "tuning",
            conf,
            netns=self.pod.path,
            container_id=self.container,
            args=self.case.args,
        )

    def detach(self) -> None:
        conf = _main(self.case.version)
        done = self.node.cni(
            "DEL",
            self.main / "bridge",
            conf,
            netns=self.pod.path,
            container_id=self.container,
        )
        assert done.code == 0, done


def observe(chain: Chain) -> list[tuple[str, Any]]:
    """Everything that is the same with either `tuning`, in order."""
    case = chain.case
    chain.attach()
    pod = chain.pod
    [link] = pod.ip("link show eth0")
    known = {link["address"]: "the first MAC"}
    before = state(pod, known)
    added = chain.tune("ADD")
    seen: list[tuple[str, Any]] = [("before", before), ("ADD succeeds", added.code == 0)]
    if added.code:
        chain.tune("DEL")
        return seen
    seen += [
        ("result", _differing(chain.result, added.json, known)),
        ("state", state(pod, known)),
    ]
    chain.result = added.json
    if case.version >= "0.4.0" and not case.keys.get("sysctl"):
        seen.append(("CHECK succeeds", chain.tune("CHECK").code == 0))
        if case.damage:
            pod.ip_batch(case.damage)
            seen.append(("CHECK of damage succeeds", chain.tune("CHECK").code == 0))
            # podwire restores a link only if its MAC proves that it is still the one.
            pod.ip_batch(case.damage.replace(OTHER_MAC, MAC))
    for _ in range(2):
        deleted = chain.tune("DEL")
        assert deleted.code == 0, deleted
    seen.append(("state after DEL", state(pod, known)))
    return seen


def _differing(before: Any, after: Any, known: Mapping[str, str]) -> list[str]:
    """The members of a result that `tuning` changed, but for MTUs."""
    old, new = dict(_flat("", before)), dict(_flat("", after))
    return [
        f"{key}: {known.get(str(old.get(key)), old.get(key))} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.endswith(".mtu")
    ]


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and path != ".dns":
        return [each for key, member in value.items() for each in _flat(f"{path}.{key}", member)]
    if isinstance(value, list):
        return [each for i, member in enumerate(value) for each in _flat(f"{path}[{i}]", member)]
    return [(path, value)] if value else []


PARAMETERS = [
    pytest.param(case, which, main, id=f"{case.name}-{which}-{main}", marks=marks)
    for case in CASES
    for which, marks, main in (
        ("debian", (), "reference"),
        ("newest", pytest.mark.needs("newest-reference"), "podwire"),
    )
    if which == "newest" or not case.newest_only
]


@pytest.mark.parametrize(("case", "which", "main"), PARAMETERS)
def test_the_same_in_the_pod(
    request: pytest.FixtureRequest,
    node: Node,
    make_pod: MakePod,
    podwire_bin: Path,
    case: Case,
    which: str,
    main: str,
) -> None:
    reference = DEBIAN_REFERENCE
    if which == "newest":
        reference = request.getfixturevalue("newest_reference_bin")
    mains = podwire_bin if main == "podwire" else reference
    theirs = Chain(node, mains, reference, make_pod(), case, "theirs")
    ours = Chain(node, mains, podwire_bin, make_pod(), case, "ours")
    expected = observe(theirs)
    assert observe(ours) == expected
    if case.code:
        untouched = state(ours.pod, {})
        answer = ours.tune("ADD")
        assert answer.json["code"] == case.code, answer
        assert state(ours.pod, {}) == untouched
        assert {**untouched, "address": ""} == {**dict(expected)["before"], "address": ""}
    for chain in (ours, theirs):
        chain.detach()
    assert "podwire" not in node.ns.run(["nft", "list", "ruleset"]).stdout
