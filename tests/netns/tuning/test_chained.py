"""`tuning` and other pieces of a chain on one attachment, of podwire's or of the reference's."""

from pathlib import Path
from typing import Any

import pytest

from tests.netns.differential.conftest import DEBIAN_REFERENCE
from tests.netns.host_ports.test_chained import addresses, conf, main
from tests.netns.host_ports.test_host_ports import mapping
from tests.netns.robustness.test_source_check import link_local
from tests.pytest_netns import CniResult, Namespace, Node

MAC = "02:11:22:33:44:55"
KEYS: dict[str, dict[str, Any]] = {
    "tuning": {"mac": MAC, "mtu": 1400},
    "portmap": {"runtimeConfig": {"portMappings": [mapping(8080, 80)]}},
    "bandwidth": {"ingressRate": 10**9, "ingressBurst": 10**7, "egressRate": 10**9}
    | {"egressBurst": 10**7},
    "firewall": {"ingressPolicy": "same-bridge"},
}


@pytest.fixture(params=["podwire", "reference"])
def plugins(request: pytest.FixtureRequest, tmp_path: Path, podwire_bin: Path) -> Path:
    """A folder of plugins in which the chained ones are podwire."""
    folder = tmp_path / "bin"
    folder.mkdir()
    mains = podwire_bin if request.param == "podwire" else DEBIAN_REFERENCE
    for name in ("bridge", "ptp", "host-local"):
        (folder / name).symlink_to(mains / name)
    for name in KEYS:
        (folder / name).symlink_to(podwire_bin / name)
    return folder


class Pod:
    """An attachment in the making."""

    def __init__(self, node: Node, plugins: Path, pod: Namespace, version: str = "1.0.0") -> None:
        self.node, self.plugins, self.pod, self.version = node, plugins, pod, version
        self.result: dict[str, Any] = {}

    def main(self, verb: str, **keys: Any) -> CniResult:
        return self._call(verb, "bridge", {**main("bridge"), **keys})

    def chained(self, verb: str, kind: str, **keys: Any) -> CniResult:
        return self._call(verb, kind, {**conf(kind, prevResult=self.result), **KEYS[kind], **keys})

    def _call(self, verb: str, kind: str, keys: dict[str, Any]) -> CniResult:
        keys = {**keys, "cniVersion": self.version}
        answer = self.node.cni(verb, self.plugins / kind, keys, netns=self.pod.path)
        if verb == "ADD" and answer.code == 0:
            self.result = answer.json
        return answer

    def trait(self, name: str) -> Any:
        link = self.pod.link("eth0")
        assert link is not None
        return link[name]

    def rules(self) -> str:
        return self.node.ns.run(["nft", "list", "ruleset"]).stdout


@pytest.fixture
def attached(node: Node, plugins: Path, pod: Namespace) -> Pod:
    found = Pod(node, plugins, pod)
    assert found.main("ADD").code == 0
    return found


@pytest.mark.parametrize("order", [("tuning", "portmap"), ("portmap", "tuning")])
def test_each_takes_its_own_piece_away(attached: Pod, order: tuple[str, str]) -> None:
    original = attached.trait("address")
    for kind in order:
        assert attached.chained("ADD", kind).code == 0
    for kind in order:
        assert attached.chained("CHECK", kind).code == 0
    assert attached.main("CHECK", prevResult=attached.result).code == 0
    for kind in order:
        assert attached.chained("DEL", kind).code == 0
        assert ("8080" in attached.rules()) == (kind == "tuning" and order[1] == "portmap")
        tuned = attached.trait("address") == MAC
        assert tuned == (kind == "portmap" and order[1] == "tuning")
    assert attached.trait("address") == original
    assert attached.trait("mtu") == 1500
    assert attached.main("DEL").code == 0
    assert "podwire" not in attached.rules()


def test_the_last_del_takes_the_rest(attached: Pod, podwire_bin: Path) -> None:
    for kind in KEYS:
        assert attached.chained("ADD", kind).code == 0
    assert attached.main("DEL").code == 0
    # Where the main plugin is another, it knows nothing of the pieces.
    if (attached.plugins / "bridge").resolve() == (podwire_bin / "bridge").resolve():
        assert "podwire" not in attached.rules()
    for kind in KEYS:
        assert attached.chained("DEL", kind).code == 0
    assert "podwire" not in attached.rules()


def test_all_of_a_chain(attached: Pod) -> None:
    """Each CHECK is sound until its own piece goes, in whatever order the others do."""
    kinds = list(KEYS)
    for kind in kinds:
        assert attached.chained("ADD", kind).code == 0, kind
    server = attached.pod.echo("tcp", addresses(attached.result)[4], 80)
    outside, to = attached.node.underlay.ns, (attached.node.address(4), 8080)
    assert outside.exchange(server, to=to)
    while kinds:
        for kind in kinds:
            answer = attached.chained("CHECK", kind)
            assert answer.code == 0, (kind, kinds, answer)
        assert attached.chained("DEL", kinds.pop(0)).code == 0
    assert attached.main("DEL").code == 0
    assert "podwire" not in attached.rules()
    left = {link["ifname"] for link in attached.node.ns.ip("link show")}
    assert left <= {"lo", "eth0", "br0"}


def test_a_repeated_add(attached: Pod) -> None:
    """Ports of the first call are free again; the link's own traits are not forgotten."""
    original, first = attached.trait("address"), attached.result
    for port, mtu in ((8080, 1400), (8081, 1300)):
        mapped = {"runtimeConfig": {"portMappings": [mapping(port, 80)]}}
        attached.result = first
        assert attached.chained("ADD", "portmap", **mapped).code == 0
        attached.result = first
        assert attached.chained("ADD", "tuning", mtu=mtu).code == 0
    assert ("8080" in attached.rules(), "8081" in attached.rules()) == (False, True)
    assert attached.trait("mtu") == 1300
    for kind in ("portmap", "tuning"):
        assert attached.chained("DEL", kind).code == 0
    assert (attached.trait("mtu"), attached.trait("address")) == (1500, original)


def test_two_of_a_chain(attached: Pod) -> None:
    """The second adds to what the first has changed, and the link's own traits come back."""
    before, setting = attached.pod.link("eth0"), "net.ipv4.conf.IFNAME.log_martians"
    entries: list[dict[str, Any]] = [
        {"promisc": True, "sysctl": {setting: "1"}},
        {"mac": "", "mtu": 0, "txQLen": 500, "sysctl": {"net.core.somaxconn": "500"}},
    ]
    for keys in entries:
        assert attached.chained("ADD", "tuning", **keys).code == 0
    assert (attached.trait("address"), attached.trait("mtu")) == (MAC, 1400)
    assert attached.trait("txqlen") == 500
    for keys in entries:
        answer = attached.chained("CHECK", "tuning", **keys)
        assert answer.code == 0, answer
    for keys in reversed(entries):
        assert attached.chained("DEL", "tuning", **keys).code == 0
    assert attached.pod.link("eth0") == before
    assert attached.main("DEL").code == 0
    assert "podwire" not in attached.rules()


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_another_mac_passes_the_source_check(
    node: Node, pod: Namespace, podwire_bin: Path, mode: str
) -> None:
    ranges = {"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]]}
    keys = {"mode": mode, "bridge": "br0", "isGateway": True, "ipam": ranges}
    native = conf("podwire", **keys)
    first = node.cni("ADD", podwire_bin / "podwire", native, netns=pod.path)
    tuned = conf("tuning", prevResult=first.json, mac=MAC)
    answer = node.cni("ADD", podwire_bin / "tuning", tuned, netns=pod.path)
    assert [i["mac"] for i in answer.json["interfaces"] if i["name"] == "eth0"] == [MAC]
    pod.ip_batch("link set eth0 down\nlink set eth0 up")  # a link-local address of the new MAC
    pod.ip_batch("route replace 10.77.0.1 dev eth0\nroute replace fd00:77::1 dev eth0")
    link = "br0" if mode == "bridge" else first.json["interfaces"][0]["name"]
    for gateway in ("10.77.0.1", "fd00:77::1", f"{link_local(node.ns, link)}%eth0"):
        pod.run(["ping", "-c1", "-W30", gateway])
    check = {**native, "prevResult": answer.json}
    assert node.cni("DEL", podwire_bin / "tuning", tuned, netns=pod.path).code == 0
    assert MAC not in node.ns.run(["nft", "list", "ruleset"]).stdout
    assert node.cni("DEL", podwire_bin / "podwire", check, netns=pod.path).code == 0


def test_the_result(node: Node, plugins: Path, pod: Namespace) -> None:
    """The MAC as the kernel writes it; the MTU where the result has one."""
    attached = Pod(node, plugins, pod)
    first = attached.main("ADD")
    assert first.code == 0
    before = {i["name"]: i for i in first.json["interfaces"]}["eth0"]
    attached.version = "1.1.0"
    attached.result["interfaces"] = [
        {**i, "mtu": 1500} if i["name"] == "eth0" else i for i in attached.result["interfaces"]
    ]
    answer = attached.chained("ADD", "tuning", mac=MAC.upper().replace(":", "-"))
    assert answer.code == 0
    after = {i["name"]: i for i in answer.json["interfaces"]}["eth0"]
    assert after == {**before, "mac": MAC, "mtu": 1400}
    assert attached.chained("CHECK", "tuning", mac=MAC).code == 0


def test_a_pod_that_is_not_the_one(attached: Pod) -> None:
    """Its path may lead to another pod by now, whose link is none of this DEL's business."""
    assert attached.chained("ADD", "tuning").code == 0
    attached.pod.ip_batch("link set eth0 address 02:00:00:00:00:09")
    assert attached.chained("DEL", "tuning").code == 0
    assert (attached.trait("address"), attached.trait("mtu")) == ("02:00:00:00:00:09", 1400)


@pytest.mark.parametrize("data_dir", ["/run/cni/tuning", "/run/other"])
def test_what_the_reference_noted(attached: Pod, data_dir: str) -> None:
    original = attached.trait("address")
    keys = {"dataDir": data_dir, "promisc": True, "allmulti": True}
    tuned = {**conf("tuning", prevResult=attached.result), **KEYS["tuning"], **keys}
    theirs = attached.node.cni("ADD", DEBIAN_REFERENCE / "tuning", tuned, netns=attached.pod.path)
    assert theirs.code == 0
    attached.result = theirs.json
    note = f"{data_dir}/c1_eth0.json"
    assert original in attached.node.run(["cat", note]).stdout
    assert attached.chained("CHECK", "tuning", **keys).code == 0
    assert attached.chained("DEL", "tuning", **keys).code == 0
    assert (attached.trait("address"), attached.trait("mtu")) == (original, 1500)
    assert not {"PROMISC", "ALLMULTI"} & set(attached.trait("flags"))
    assert attached.node.run(["cat", note], check=False).returncode != 0


def test_the_nodes_own_namespace(attached: Pod) -> None:
    keys = {**conf("tuning", prevResult=attached.result), "mtu": 1400}
    path = attached.node.ns.path
    answer = attached.node.cni("ADD", attached.plugins / "tuning", keys, netns=path)
    assert answer.json["code"] == 4
    assert attached.node.ns.link("eth0")["mtu"] == 1500  # type: ignore[index]


def test_settings_with_several_fields(attached: Pod) -> None:
    settings = {"sysctl": {"net.ipv4.ip_local_port_range": "2000 2100"}}
    assert attached.chained("ADD", "tuning", **settings).code == 0
    assert attached.pod.sysctl("ipv4/ip_local_port_range") == "2000\t2100"
    assert attached.chained("CHECK", "tuning", **settings).code == 0


def test_one_setting_twice(attached: Pod) -> None:
    text = b'"sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}'
    base = b'{"cniVersion": "1.0.0", "name": "chain", "type": "tuning", "prevResult": {}, '
    for sysctl in (text, text.replace(b".somaxconn", b"/somaxconn", 1)):
        answer = attached.node.cni(
            "ADD",
            attached.plugins / "tuning",
            base.replace(b"{}", b'{"cniVersion": "1.0.0"}') + sysctl + b"}",
            netns=attached.pod.path,
        )
        assert (answer.json["code"], "twice" in answer.json["msg"]) == (7, True), answer


def test_addresses_stay(attached: Pod) -> None:
    assert attached.chained("ADD", "tuning").code == 0
    server = attached.pod.echo("tcp", addresses(attached.result)[4], 80)
    assert attached.node.ns.exchange(server)
