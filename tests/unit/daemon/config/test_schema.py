"""podwired.yaml: defaults, every key, and every way of getting one wrong."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.load import load_settings, parse_settings
from daemon.config.schema import (
    ConflistSettings,
    HealthSettings,
    JournalSettings,
    MetricsSettings,
    Settings,
    SourceSettings,
    VxlanSettings,
)
from daemon.config.yaml import FileFault

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
  sourceCheck: false
  nonMasqueradeCIDRs: [10.0.0.0/8, "fd00::/8"]
  allowedSourcePrefixes: [10.8.0.0/16]
  cniVersion: 1.1.0
journal: {path: /srv/j, maxBytes: 65536}
health: {port: 9000, interval: 5, budget: 100}
metrics: {listen: "[fd00::1]:9474"}
dataDir: /srv/data
socket: /srv/run/s
statusFile: /srv/run/status
"""


def parse(text: str, env: dict[str, str] | None = None, host: str = "Host-1") -> Settings:
    return parse_settings(text.encode(), "podwired.yaml", env or {}, host)


def test_defaults() -> None:
    assert parse(SOURCE) == Settings(
        node="host-1",
        source=SourceSettings(static=Path("/etc/podwire/nodes.yaml")),
        data_dir=Path("/var/lib/podwire"),
        socket=Path("/run/podwire/podwire.sock"),
        status_file=Path("/run/podwire/status.json"),
        journal=JournalSettings(path=Path("/var/lib/podwire/journal.jsonl"), max_bytes=16 << 20),
        backend="vxlan",
        underlay=None,
        vxlan=VxlanSettings(vni=1, port=8472, device="podwire-vxlan", checksum_offload="auto"),
        mtu=0,
        allow_overlap=(),
        conflist=ConflistSettings(),
        health=HealthSettings(port=8473, interval=3.0, budget=20.0),
        metrics=MetricsSettings(listen=("127.0.0.1", 9473)),
    )


def test_every_key() -> None:
    assert parse(FULL) == Settings(
        node="node-7.example",
        source=SourceSettings(static=Path("/srv/nodes.yaml")),
        data_dir=Path("/srv/data"),
        socket=Path("/srv/run/s"),
        status_file=Path("/srv/run/status"),
        journal=JournalSettings(path=Path("/srv/j"), max_bytes=65536),
        backend="hybrid",
        underlay=6,
        vxlan=VxlanSettings(vni=4096, port=4789, device="overlay", checksum_offload="on"),
        mtu=1400,
        allow_overlap=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        conflist=ConflistSettings(
            path=Path("/srv/cni/10-x.conflist"),
            name="pods",
            mode="bridge",
            ip_masq=False,
            source_check=False,
            non_masquerade_cidrs=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
            allowed_source_prefixes=(ip_network("10.8.0.0/16"),),
            cni_version="1.1.0",
        ),
        health=HealthSettings(port=9000, interval=5, budget=100),
        metrics=MetricsSettings(listen=("fd00::1", 9474)),
    )


def test_the_environment_moves_what_the_file_leaves_out() -> None:
    env = {"PODWIRE_SOCKET": "/run/two/p.sock", "PODWIRE_DATA_DIR": "/var/lib/two"}
    found = parse(SOURCE, env)
    assert (found.socket, found.data_dir) == (Path("/run/two/p.sock"), Path("/var/lib/two"))
    assert found.status_file == Path("/run/two/status.json")
    assert found.journal.path == Path("/var/lib/two/journal.jsonl")
    named = parse(SOURCE + "socket: /run/three/p\ndataDir: /var/lib/three\n", env)
    assert (named.socket, named.data_dir) == (Path("/run/three/p"), Path("/var/lib/three"))


@pytest.mark.parametrize(
    ("variable", "key"), [("PODWIRE_SOCKET", "socket"), ("PODWIRE_DATA_DIR", "dataDir")]
)
def test_a_relative_path_in_the_environment_is_refused_where_it_counts(
    variable: str, key: str
) -> None:
    with pytest.raises(FileFault, match=f"key {key} is left out, and {variable} is 'x/y', must be"):
        parse(SOURCE, {variable: "x/y"})
    assert parse(f"{SOURCE}{key}: /a\n", {variable: "x/y"})
    assert parse(SOURCE, {variable: ""}) == parse(SOURCE)


def test_a_key_without_value_counts_as_left_out() -> None:
    keys = FULL.replace("\n  ", " ").splitlines()
    names = [line.partition(":")[0] for line in keys if line[0].isalpha()]
    left_out = [f"{name}:\n" for name in names if name not in ("source", "conflist")]
    assert len(left_out) == 12
    assert parse(SOURCE + "".join(left_out)) == parse(SOURCE)
    inner = "vxlan: {vni: , port: ~}\njournal: {maxBytes: null}\nconflist: {name: , ipMasq: ~}\n"
    assert parse(SOURCE + inner) == parse(SOURCE)


@pytest.mark.parametrize(
    "text",
    [
        *("vxlan: {}", "conflist: {}", "journal: {}", "allowOverlap: []", "health: {}"),
        *("health:", "metrics: {}", "metrics:"),
    ],
)
def test_an_empty_section_leaves_all_at_its_defaults(text: str) -> None:
    assert parse(SOURCE + text) == parse(SOURCE)


@pytest.mark.parametrize("value", ["false", "null", "~", ""])
def test_no_conflist(value: str) -> None:
    assert parse(f"{SOURCE}conflist: {value}\n").conflist is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "1: needs the key source"),
        ("[]", "1: must be a mapping"),
        ("source: {}", "1: source: needs one of the keys static, kubernetes, etcd"),
        ("source:\n", "1: source: has no value"),
        ("source: {static: nodes.yaml}", "1: source.static is 'nodes.yaml', must be an absolute"),
        ("source: {consul: {}}", "1: source.consul: unknown key; known keys: static, kubernetes"),
        (f"{SOURCE}health: {{port: 0}}", "2: health.port is 0, must be a whole number from 1"),
        (
            f"{SOURCE}vxlan: {{port: 9000}}\nhealth: {{port: 9000}}",
            "3: health.port is 9000, must be another port than vxlan.port (9000)",
        ),
        (f"{SOURCE}health: {{port: 8472}}", "2: health.port is 8472, must be another port than"),
        (
            f"{SOURCE}backend: hybrid\nvxlan: {{port: 8473}}",
            "3: vxlan.port is 8473, must be another port than health.port (8473)",
        ),
        (f"{SOURCE}health: {{interval: 0}}", "2: health.interval is 0, must be a whole number"),
        (f"{SOURCE}health: true", "2: health is 'true', must be a mapping, or false"),
        (f"{SOURCE}metrics: {{listen: 9473}}", "2: metrics.listen is 9473, must be an address"),
        (f"{SOURCE}metrics: {{listen: 'x:1'}}", "2: metrics.listen is 'x:1', must be an address"),
        (f"{SOURCE}metrics: {{listen: '::1:1'}}", "2: metrics.listen is '::1:1', must be an add"),
        (f"{SOURCE}metrics: {{listen: '[1.1.1.1]:1'}}", "2: metrics.listen is '[1.1.1.1]:1', mu"),
        (f"{SOURCE}metrics: {{listen: '127.0.0.1:0'}}", "2: metrics.listen is '127.0.0.1:0', m"),
        ("Backend: vxlan", "1: Backend: unknown key; did you mean backend?"),
        ("x: 1", "1: x: unknown key; known keys: node, backend,"),
        (f"{SOURCE}vxlan:\n  vin: 1", "3: vxlan.vin: unknown key; did you mean vni?"),
        (f"{SOURCE}vxlan:\n  vni: 16777216", "3: vxlan.vni is 16777216, must be a whole number"),
        (f"{SOURCE}vxlan: {{vni: 0}}", "2: vxlan.vni is 0, must be a whole number from 1"),
        (f"{SOURCE}vxlan: {{port: 70000}}", "2: vxlan.port is 70000, must be"),
        (f"{SOURCE}vxlan: {{device: eth0/x}}", "2: vxlan.device is 'eth0/x', must be a plain"),
        (f"{SOURCE}vxlan: {{device: sixteen-bytes-lo}}", "2: vxlan.device is 'sixteen-bytes-lo'"),
        (f"{SOURCE}vxlan: {{device: lo}}", "2: vxlan.device is 'lo', the kernel keeps"),
        (f"{SOURCE}vxlan: {{device: cni0}}", "2: vxlan.device is 'cni0', must not be a name that"),
        (f"{SOURCE}vxlan: {{device: pw0123456789a}}", "2: vxlan.device is 'pw0123456789a', must n"),
        (f"{SOURCE}socket: /", "2: socket is '/', must be an absolute path that ends in a name"),
        (
            f"{SOURCE}journal: {{path: //}}",
            "2: journal.path is '//', must be an absolute path that",
        ),
        (f"{SOURCE}statusFile: /a/..", "2: statusFile is '/a/..', must be an absolute path that"),
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
        (f"{SOURCE}conflist: {{plugins: tuning}}", "2: conflist.plugins is 'tuning', must be a li"),
        (f"{SOURCE}conflist: {{plugins: [tuning]}}", "2: conflist.plugins[0] is 'tuning', must be"),
        (
            f"{SOURCE}conflist:\n  plugins:\n  - type: tuning\n  - mtu: 1",
            "5: conflist.plugins[1]: needs the key type",
        ),
        (
            f"{SOURCE}conflist: {{plugins: [{{type: /bin/sh}}]}}",
            "2: conflist.plugins[0].type is '/bin/sh', must be a plain file name",
        ),
        (
            f"{SOURCE}conflist: {{plugins: [{{type: ..}}]}}",
            "2: conflist.plugins[0].type is '..', mu",
        ),
        (
            f"{SOURCE}conflist: {{plugins: [{{type: podwire}}]}}",
            "2: conflist.plugins[0].type is 'podwire', must be another plugin",
        ),
        (
            f"{SOURCE}conflist: {{plugins: [{{type: [x]}}]}}",
            "2: conflist.plugins[0].type is a list",
        ),
        (
            f"{SOURCE}conflist: {{plugins: [{{type: x, y: {'z' * 70_000}}}]}}",
            "2: conflist.plugins[0]: has more than 64 KiB as JSON",
        ),
        (
            f"{SOURCE}conflist: {{plugins: [{'{type: x}, ' * 17}]}}",
            "2: conflist.plugins is a list, must hold 16 members at most",
        ),
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


@pytest.mark.parametrize("rest", ["backend: host-gw", "backend: none", "health: false"])
def test_without_overlay_or_probes_one_port_is_enough(rest: str) -> None:
    health = "" if "health" in rest else "health: {port: 9000}\n"
    assert parse(f"{SOURCE}vxlan: {{port: 9000}}\n{health}{rest}").vxlan.port == 9000


@pytest.mark.parametrize("value", ["1", "8472", "65535", "08472"])
def test_whole_numbers(value: str) -> None:
    assert parse(f"{SOURCE}vxlan: {{port: {value}}}").vxlan.port == int(value)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "0",
            "65536",
            "-1",
            "+5",
            "5.0",
            "5e0",
            "0x5",
            "0o5",
            "1_0",
            "five",
            "\u0665",
            "9" * 5000,
        ),
        *("'5'", '"5"', "true", "[5]", "{5: 5}", "5 6"),
    ],
)
def test_what_is_no_whole_number_in_range_is_refused(value: str) -> None:
    with pytest.raises(FileFault, match="must be a whole number from 1 to 65535") as caught:
        parse(f"{SOURCE}vxlan:\n  port: {value}\n")
    assert (caught.value.line, caught.value.key) == (3, "vxlan.port")


@pytest.mark.parametrize("value", ["yes", "on", "True", "TRUE", "1", "0", "'true'", "[true]"])
def test_only_true_and_false_are_booleans(value: str) -> None:
    with pytest.raises(FileFault, match="must be true or false") as caught:
        parse(f"{SOURCE}conflist:\n  name: pods\n  ipMasq: {value}\n")
    assert (caught.value.line, caught.value.key) == (4, "conflist.ipMasq")
    assert parse(f"{SOURCE}conflist: {{ipMasq: true}}").conflist == ConflistSettings()


@pytest.mark.parametrize("value", ["1", "1.5", "true", "'1'"])
def test_text_is_text_whatever_it_looks_like(value: str) -> None:
    found = parse(f"{SOURCE}node: {value}\nconflist: {{name: {value}}}")
    assert found.conflist is not None
    assert found.node == found.conflist.name == value.strip("'")
    assert type(found.node) is type(found.conflist.name) is str


@pytest.mark.parametrize("value", ["[]", "{}"])
@pytest.mark.parametrize("key", ["node", "dataDir", "socket", "statusFile"])
def test_what_is_no_text_is_refused(key: str, value: str) -> None:
    with pytest.raises(FileFault, match=f"{key} is a (list|mapping), must be text"):
        parse(f"{SOURCE}{key}: {value}")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("datadir: /x", "dataDir"),
        ("data_dir: /x", "dataDir"),
        ("status_file: /x", "statusFile"),
        ("vxlan: {checksum_offload: on}", "checksumOffload"),
        ("vxlan: {VNI: 1}", "vni"),
        ("conflist: {ip_masq: true}", "ipMasq"),
        ("conflist: {IPMasq: true}", "ipMasq"),
        ("journal: {max_bytes: }", "maxBytes"),
        ("Source:", "source"),
    ],
)
def test_a_key_has_one_spelling(text: str, near: str) -> None:
    with pytest.raises(FileFault, match=f"unknown key; did you mean {near}\\?"):
        parse(SOURCE + text)


def test_a_misspelt_key_is_named_before_the_one_that_is_therefore_missing() -> None:
    with pytest.raises(FileFault, match=r"podwired\.yaml:2: sorce: .*did you mean source\?"):
        parse("mtu: 1\nsorce: {static: /x}\n")


def test_the_first_line_that_is_wrong_is_named() -> None:
    with pytest.raises(FileFault, match=r"podwired\.yaml:2: mtu is 1, "):
        parse(f"{SOURCE}mtu: 1\nbackend: x\nvxlan: {{vni: 0}}\n")


def test_the_members_of_a_list_have_their_own_lines() -> None:
    with pytest.raises(FileFault) as caught:
        parse(f"{SOURCE}allowOverlap:\n- 10.0.0.0/8\n-\n")
    assert str(caught.value) == "podwired.yaml:4: allowOverlap[1] is empty, must be text"
    with pytest.raises(FileFault, match=r":2: allowOverlap is '10\.0\.0\.0/8', must be a list"):
        parse(f"{SOURCE}allowOverlap: 10.0.0.0/8")


def test_a_chained_plugin_keeps_its_keys_and_their_types() -> None:
    plugin = """
    - type: tuning
      sysctl: {net.core.somaxconn: "4096", net.ipv4.ip_forward: 1}
      promisc: false
      name: yes
      rate: 1.5e3
      date: 2026-01-02
      octal: 007
      huge: 1e999
      text: "true"
      none:
      list: [1, [two], {three: -3}]
      _Any.key/at all: x
    """
    (found,) = parse(f"{SOURCE}conflist:\n  plugins:{plugin}").conflist.plugins  # type: ignore[union-attr]
    assert found.render() == {
        "type": "tuning",
        "sysctl": {"net.core.somaxconn": "4096", "net.ipv4.ip_forward": 1},
        "promisc": False,
        "name": "yes",
        "rate": 1500.0,
        "date": "2026-01-02",
        "octal": "007",
        "huge": "1e999",
        "text": "true",
        "none": None,
        "list": [1, ["two"], {"three": -3}],
        "_Any.key/at all": "x",
    }


KEYS = st.sampled_from(
    [
        *("node", "backend", "source", "underlay", "vxlan", "mtu", "allowOverlap", "conflist"),
        *("journal", "dataDir", "socket", "statusFile", "static", "vni", "port", "device"),
        *("checksumOffload", "path", "name", "mode", "ipMasq", "cniVersion", "maxBytes"),
    ]
)
WORDS = KEYS | st.text(min_size=1, max_size=3)
LEAVES = st.sampled_from(
    ["/x", "/x.conflist", "1.0.0", "vxlan", "on", "ptp", "a", "ipv4", 0, 1, 1400, True, False, None]
) | st.text(max_size=5)
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=2) | st.dictionaries(WORDS, v))


# YAML 1.1, 4.2: b-char.
LINE_ENDS = "\n\x85\u2028\u2029"


def parse_or_fault(text: str) -> tuple[Settings | None, FileFault | None]:
    """The settings, or why they cannot be had; nothing else may come up."""
    try:
        return parse(text), None
    except FileFault as fault:
        return None, fault


@given(st.dictionaries(WORDS, VALUES))
def test_anything_is_settings_or_a_fault_in_one_of_its_lines(content: dict[str, object]) -> None:
    text = yaml.safe_dump({"source": {"static": "/x"}, **content}, allow_unicode=True)
    settings, fault = parse_or_fault(text)
    assert (settings is None) != (fault is None)
    lines = sum(map(text.count, LINE_ENDS))
    assert fault is None or (fault.why and fault.key and 1 <= fault.line <= lines)


def test_a_host_name_that_is_no_node_name_needs_the_key() -> None:
    with pytest.raises(FileFault, match=r"needs the key node, for the host name 'my_host' must be"):
        parse(SOURCE, host="my_host")
    assert parse(f"{SOURCE}node: n", host="my_host").node == "n"


def test_a_pod_is_given_the_name_of_its_node() -> None:
    env = {"PODWIRE_NODE": "node-1.example"}
    assert parse(SOURCE, env, host="podwired-x7f2m").node == "node-1.example"
    assert parse(f"{SOURCE}node: n", env).node == "n"
    with pytest.raises(FileFault, match="needs the key node, for PODWIRE_NODE 'Node_1' must be"):
        parse(SOURCE, {"PODWIRE_NODE": "Node_1"}, host="node-1")
    assert parse(SOURCE, {"PODWIRE_NODE": ""}, host="node-1").node == "node-1"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFault, match=r"none\.yaml: could not be read: No such file"):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(FileFault, match=r"could not be read: Is a directory"):
        load_settings(tmp_path)


def test_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "podwired.yaml"
    path.write_text(FULL)
    assert load_settings(path).node == "node-7.example"
