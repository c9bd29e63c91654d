"""podwired.yaml: defaults, every key, and every way of getting one wrong."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from daemon.settings import (
    ConflistSettings,
    JournalSettings,
    Settings,
    SourceSettings,
    VxlanSettings,
    load_settings,
    parse_settings,
)
from daemon.yamlfile import FileFault

SOURCE = "source: {static: /etc/podwire/nodes.yaml}\n"
FULL = """\
node: node-7.example
backend: hybrid
source:
  static: /srv/nodes.yaml
underlay: ipv6
vxlan: {vni: 4096, port: 4789, device: overlay, checksumOffload: on}
mtu: 1400
allowOverlap: [10.0.0.0/8, "fd00::/8"]
conflist:
  path: /srv/cni/10-x.conflist
  name: pods
  mode: bridge
  ipMasq: false
  cniVersion: 1.1.0
journal: {path: /srv/j, maxBytes: 65536}
dataDir: /srv/data
socket: /srv/run/s
statusFile: /srv/run/status
"""


def parse(text: str, env: dict[str, str] | None = None, host: str = "Host-1") -> Settings:
    return parse_settings(text.encode(), "podwired.yaml", env or {}, host)


def test_defaults() -> None:
    assert parse(SOURCE) == Settings(
        node="host-1",
        source=SourceSettings("static", Path("/etc/podwire/nodes.yaml")),
        data_dir=Path("/var/lib/podwire"),
        socket=Path("/run/podwire/podwire.sock"),
        status_file=Path("/run/podwire/status.json"),
        journal=JournalSettings(Path("/var/lib/podwire/journal.jsonl"), 16 << 20),
        backend="vxlan",
        underlay=None,
        vxlan=VxlanSettings(1, 8472, "podwire-vxlan", "auto"),
        mtu=0,
        allow_overlap=(),
        conflist=ConflistSettings(),
    )


def test_every_key() -> None:
    assert parse(FULL) == Settings(
        node="node-7.example",
        source=SourceSettings("static", Path("/srv/nodes.yaml")),
        data_dir=Path("/srv/data"),
        socket=Path("/srv/run/s"),
        status_file=Path("/srv/run/status"),
        journal=JournalSettings(Path("/srv/j"), 65536),
        backend="hybrid",
        underlay=6,
        vxlan=VxlanSettings(4096, 4789, "overlay", "on"),
        mtu=1400,
        allow_overlap=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        conflist=ConflistSettings(Path("/srv/cni/10-x.conflist"), "pods", "bridge", False, "1.1.0"),
    )


def test_the_environment_moves_what_the_file_leaves_out() -> None:
    env = {"PODWIRE_SOCKET": "/run/two/p.sock", "PODWIRE_DATA_DIR": "/var/lib/two"}
    found = parse(SOURCE, env)
    assert (found.socket, found.data_dir) == (Path("/run/two/p.sock"), Path("/var/lib/two"))
    assert found.status_file == Path("/run/two/status.json")
    assert found.journal.path == Path("/var/lib/two/journal.jsonl")
    named = parse(SOURCE + "socket: /run/three/p\ndataDir: /var/lib/three\n", env)
    assert (named.socket, named.data_dir) == (Path("/run/three/p"), Path("/var/lib/three"))


@pytest.mark.parametrize("value", ["false", "null", "~", ""])
def test_no_conflist(value: str) -> None:
    assert parse(f"{SOURCE}conflist: {value}\n").conflist is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "1: needs the key source"),
        ("[]", "1: must be a mapping"),
        ("source: {}", "1: source: needs the key static"),
        ("source:\n", "1: source: has no value"),
        ("source: {static: nodes.yaml}", "1: source.static is 'nodes.yaml', must be an absolute"),
        ("source: {kubernetes: {}}", "1: source.kubernetes: unknown key; known keys: static"),
        ("Backend: vxlan", "1: Backend: unknown key; did you mean backend?"),
        ("x: 1", "1: x: unknown key; known keys: node, backend,"),
        (f"{SOURCE}vxlan:\n  vin: 1", "3: vxlan.vin: unknown key; did you mean vni?"),
        (f"{SOURCE}vxlan:\n  vni: 16777216", "3: vxlan.vni is 16777216, must be a whole number"),
        (f"{SOURCE}vxlan: {{vni: 0}}", "2: vxlan.vni is 0, must be a whole number from 1"),
        (f"{SOURCE}vxlan: {{port: 70000}}", "2: vxlan.port is 70000, must be"),
        (f"{SOURCE}vxlan: {{device: eth0/x}}", "2: vxlan.device is 'eth0/x', must be a plain"),
        (f"{SOURCE}vxlan: {{device: sixteen-bytes-lo}}", "2: vxlan.device is 'sixteen-bytes-lo'"),
        (f"{SOURCE}vxlan: {{device: lo}}", "2: vxlan.device is 'lo', the kernel keeps"),
        (f"{SOURCE}vxlan: {{checksumOffload: yes}}", "2: vxlan.checksumOffload is 'yes', must be"),
        (f"{SOURCE}vxlan: 1", "2: vxlan is 1, must be a mapping"),
        (f"{SOURCE}backend: ipip", "2: backend is 'ipip', must be one of vxlan, host-gw, hybrid"),
        (f"{SOURCE}backend: [vxlan]", "2: backend is a list, must be one of"),
        (f"{SOURCE}underlay: 4", "2: underlay is 4, must be one of ipv4, ipv6"),
        (f"{SOURCE}mtu: 100", "2: mtu is 100, must be 0 (that of the uplink) or from 576"),
        (f"{SOURCE}mtu: 65536", "2: mtu is 65536, must be a whole number"),
        (f"{SOURCE}node: Node_1", "2: node is 'Node_1', must be a DNS subdomain"),
        (f"{SOURCE}allowOverlap: [10.0.0.1/8]", "2: allowOverlap[0] is '10.0.0.1/8', has host"),
        (f"{SOURCE}allowOverlap: [10.0.0.0]", "2: allowOverlap[0] is '10.0.0.0', must be a pre"),
        (f"{SOURCE}conflist: true", "2: conflist is 'true', must be a mapping, or false"),
        (f"{SOURCE}conflist: {{path: /etc/x.conf}}", "2: conflist.path is '/etc/x.conf', must end"),
        (f"{SOURCE}conflist: {{name: ../x}}", "2: conflist.name is '../x', must start"),
        (f"{SOURCE}conflist: {{name: -x}}", "2: conflist.name is '-x', must start"),
        (f"{SOURCE}conflist: {{mode: ipvlan}}", "2: conflist.mode is 'ipvlan', must be one of"),
        (f"{SOURCE}conflist: {{cniVersion: 2.0.0}}", "2: conflist.cniVersion is '2.0.0', must be"),
        (f"{SOURCE}journal: {{maxBytes: 10}}", "2: journal.maxBytes is 10, must be"),
        (f"{SOURCE}socket: /{'x' * 107}", "2: socket is '/xxx"),
        (f'{SOURCE}dataDir: "/a\\0b"', "2: dataDir is '/a\\x00b', must be an absolute path"),
        (f'{SOURCE}dataDir: "/a\\nb"', "2: dataDir is '/a\\nb', must be an absolute path"),
        (f"{SOURCE}{SOURCE}", "2: duplicate key source, which line 1 has already"),
    ],
)
def test_what_is_wrong_is_named_by_line_key_and_value(text: str, message: str) -> None:
    with pytest.raises(FileFault) as caught:
        parse(text)
    assert str(caught.value).startswith(f"podwired.yaml:{message}"), caught.value


def test_a_host_name_that_is_no_node_name_needs_the_key() -> None:
    with pytest.raises(FileFault, match=r"needs the key node, for the host name 'my_host' must be"):
        parse(SOURCE, host="my_host")
    assert parse(f"{SOURCE}node: n", host="my_host").node == "n"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFault, match=r"none\.yaml: could not be read: No such file"):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(FileFault, match=r"could not be read: Is a directory"):
        load_settings(tmp_path)


def test_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "podwired.yaml"
    path.write_text(FULL)
    assert load_settings(path).node == "node-7.example"
