"""Which IPAM gives the addresses: by type, by the name that podwire runs under, by CNI_PATH."""

from __future__ import annotations

import os
import shutil
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.config import parse_config
from cni_plugin.host import Host
from cni_plugin.ipam_client import DelegatedIpam, OwnIpam, choose_ipam, ipam_of_record
from cni_plugin.request import parse_request
from tests.unit.cni_plugin.calls import CONFIG, Node, config, environment, refused, succeeded

pytestmark = pytest.mark.usefixtures("no_links")
SUBNET = {"subnet": "10.1.0.0/24"}


def choose(ipam: dict[str, Any], path: Path | str = "/nonexistent", **host: Any) -> Any:
    request = parse_request(environment(CNI_PATH=str(path)))
    return choose_ipam(request, parse_config({"name": "net", "ipam": ipam}), Host(**host))


@pytest.mark.parametrize("kind", ["podwire", "podwire-ipam", "host-local", ""])
def test_own(kind: str) -> None:
    chosen = choose({"type": kind, **SUBNET})
    assert isinstance(chosen, OwnIpam)
    assert chosen.plugin == ""


def test_none() -> None:
    for chosen in (choose({}), choose({"type": ""})):
        assert not isinstance(chosen, OwnIpam | DelegatedIpam)
        assert chosen.plugin == ""


def test_another_plugin() -> None:
    assert choose({"type": "other-ipam"}).plugin == "other-ipam"
    assert isinstance(choose({"type": "other-ipam"}, program="podwire-ipam"), OwnIpam)


def test_host_local_of_the_path_is_the_reference_plugin_or_podwire_itself(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    executable = ours / "podwire"
    for program in (executable, theirs / "host-local"):
        program.write_text(str(program))
        program.chmod(0o755)
    os.symlink(executable, ours / "host-local")
    assert isinstance(choose({"type": "host-local"}, ours, executable=executable), OwnIpam)
    assert choose({"type": "host-local"}, theirs, executable=executable).plugin == "host-local"
    assert choose({"type": "host-local"}, ours, executable=None).plugin == "host-local"


def test_a_copy_of_podwire_is_podwire(tmp_path: Path) -> None:
    """An installation of copies: `podwired install --copy --as bridge,host-local`."""
    executable, program = tmp_path / "bridge", tmp_path / "host-local"
    executable.write_text("podwire")
    executable.chmod(0o755)

    def is_own() -> bool:
        kind = {"type": "host-local"}
        return isinstance(choose(kind, tmp_path, executable=executable), OwnIpam)

    shutil.copy(executable, program)
    assert is_own()
    for content in ("another", "podwire, but longer"):
        program.write_text(content)
        assert not is_own()
    program.write_text("podwire")
    assert is_own()
    program.unlink()
    os.link(executable, program)
    assert is_own()
    executable.unlink()
    assert not is_own()


def test_the_ipam_of_a_record() -> None:
    assert isinstance(ipam_of_record(""), OwnIpam)
    assert ipam_of_record("other-ipam").plugin == "other-ipam"


def make_plugin(folder: Path, address: str = "10.88.0.9/24") -> None:
    """An IPAM plugin that writes down each call."""
    path = folder / "other-ipam"
    line = '"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS"'
    answer = f"""'{{"cniVersion": "1.1.0", "ips": [{{"address": "{address}"}}]}}'"""
    path.write_text(
        f"#!/bin/bash\necho {line} >>{folder}/calls\n[[ $CNI_COMMAND != ADD ]] || echo {answer}\n"
    )
    path.chmod(0o755)


def test_another_plugin_gets_every_verb(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path)
    conf = config(ipam={"type": "other-ipam"})

    def call(verb: str, **more: Any) -> dict[str, Any]:
        env = environment(verb, CNI_PATH=str(tmp_path))
        return succeeded(node.call(env, {**conf, **more}))

    result = call("ADD")
    assert [ip["address"] for ip in result["ips"]] == ["10.88.0.9/24"]
    call("CHECK", prevResult=result)
    call("STATUS")
    call("GC", **{"cni.dev/valid-attachments": [{"containerID": "container1", "ifname": "eth0"}]})
    call("DEL")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[0] for line in calls] == ["ADD", "CHECK", "STATUS", "GC", "DEL"]
    assert calls[-1] == "DEL container1 eth0 /run/netns/pod"


@pytest.mark.parametrize("address", ["10.77.0.5/32", "10.78.0.1/24", "255.255.255.255/32"])
def test_an_answer_that_leaves_no_gateway_is_undone(
    node: Node, tmp_path: Path, address: str
) -> None:
    make_plugin(tmp_path, address)
    conf = config(ipam={"type": "other-ipam"})
    answer = refused(node.call(environment(CNI_PATH=str(tmp_path)), conf))
    assert answer["code"] == 104
    assert f"no gateway for {address}" in answer["msg"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[0] for line in calls] == ["ADD", "DEL"]


def test_gc_sends_another_plugin_the_stale_attachments_del(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path)
    conf = config(ipam={"type": "other-ipam"})
    env = environment(CNI_PATH=str(tmp_path))
    succeeded(node.call(env, conf))
    gc = environment("GC", CNI_PATH=str(tmp_path), CNI_CONTAINERID="", CNI_IFNAME="")
    succeeded(node.call(gc, {**conf, "cni.dev/valid-attachments": []}))
    assert (tmp_path / "calls").read_text().splitlines()[1].rstrip() == "DEL container1 eth0"


def test_the_record_names_the_plugin_that_del_asks(node: Node, tmp_path: Path) -> None:
    """Whatever the configuration says by then."""
    make_plugin(tmp_path)
    env = environment(CNI_PATH=str(tmp_path))
    succeeded(node.call(env, config(ipam={"type": "other-ipam"})))
    succeeded(node.call(environment("DEL", CNI_PATH=str(tmp_path)), CONFIG))
    assert "DEL container1" in (tmp_path / "calls").read_text()


def test_a_plugin_is_not_asked_for_a_pod_that_has_the_link(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path)
    succeeded(node.call(environment(), CONFIG))
    other = environment(CNI_CONTAINERID="other", CNI_PATH=str(tmp_path))
    assert refused(node.call(other, config(ipam={"type": "other-ipam"})))["code"] == 103
    assert not (tmp_path / "calls").exists()


def test_status_of_a_full_range(node: Node) -> None:
    conf = config(ipam={"subnet": "10.88.0.0/30", "gateway": "10.88.0.1"})
    assert succeeded(node.call(environment("STATUS"), conf)) == {}
    succeeded(node.call(environment(), conf))
    answer = refused(node.call(environment("STATUS"), conf))
    assert answer["code"] == 50
    assert "range set 0 of network podnet is full: 1 allocated" in answer["msg"]


@pytest.mark.parametrize(("folder", "used"), [("own", True), ("relative", False), (5, False)])
def test_data_dir(tmp_path: Path, folder: Any, used: bool) -> None:
    """DEL takes a dataDir that is none for absent."""
    named = str(tmp_path / folder) if folder == "own" else folder
    node = Node(tmp_path / "data")
    conf = config(ipam={**SUBNET, "dataDir": named})
    succeeded(node.call(environment("DEL", CNI_NETNS=""), conf))
    assert (tmp_path / "own").exists() is used
    assert node.data_dir.exists() is not used


def test_a_section_is_parsed_once_whatever_else_a_call_says(node: Node) -> None:
    """Ports of a pod's own make other bytes; another section or a requested address counts."""

    node.program = "podwire-ipam"

    def allocated(number: int, **keys: Any) -> str:
        env = environment(CNI_CONTAINERID=f"c{number}")
        return str(succeeded(node.call(env, config(**keys)))["ips"][0]["address"])

    ports = [{"hostPort": port, "containerPort": port} for port in (8001, 8002)]
    first, second = (
        allocated(n, runtimeConfig={"portMappings": [port]}) for n, port in enumerate(ports)
    )
    assert first != second
    wish = str(ip_interface(second).ip + 5)
    assert allocated(3, runtimeConfig={"ips": [wish]}).startswith(wish)
    other = {**CONFIG["ipam"], "subnet": "10.99.0.0/24"}
    assert allocated(4, ipam=other).startswith("10.99.0.")


OTHER_PLUGINS: dict[str, dict[str, Any]] = {
    "ipvlan": {"type": "ipvlan", "master": "eth0", "mode": "l2"},
    "macvlan": {"type": "macvlan", "master": "eth0", "mode": "passthru", "bcqueuelen": 1000},
    "sriov": {"type": "sriov", "deviceID": "0000:03:02.0", "vlan": 1000, "vlanQoS": 2},
    "ovs": {"type": "ovs", "bridge": "br/int", "vlan": 100, "trunk": [{"minID": 7}]},
    "bond": {"type": "bond", "mode": "active-backup", "mtu": 100_000},
    "egress-cni": {"type": "egress-cni", "mtu": "9001", "enabled": "false"},
    "bridge": {"type": "bridge", "vlan": 10, "vlanTrunk": [{"id": 7}]},
}
"""Main plugins of others, with keys that mean something else to podwire's own."""


@pytest.mark.parametrize("program", ["host-local", "podwire-ipam"])
@pytest.mark.parametrize("plugin", OTHER_PLUGINS)
def test_keys_of_the_main_plugin_are_its_own(node: Node, program: str, plugin: str) -> None:
    node.program = program
    keys = {"mode": None, "ipam": {"type": program, **SUBNET}, **OTHER_PLUGINS[plugin]}
    conf = config(**keys)
    valid = {"cni.dev/valid-attachments": [{"containerID": "container1", "ifname": "eth0"}]}
    result = succeeded(node.call(environment(), conf))
    assert result["ips"][0]["address"] == "10.1.0.2/24"
    for verb, more in (("CHECK", {"prevResult": result}), ("STATUS", {}), ("GC", valid)):
        assert succeeded(node.call(environment(verb), {**conf, **more})) == {}
    assert succeeded(node.call(environment("DEL"), conf)) == {}
    assert node.log == []


def test_what_the_ipam_plugin_read_is_not_the_main_plugins(node: Node) -> None:
    """Where `bridge` is replaced by podwire after `host-local` was, both get the same bytes."""
    conf = config(mode=None, type="bridge", vlan=10, ipam={"type": "host-local", **SUBNET})
    for program, code in (("host-local", 0), ("bridge", 2), ("host-local", 103)):
        node.program = program
        reply = node.call(environment(), conf)
        assert (refused(reply)["code"] if reply.status else 0) == code
