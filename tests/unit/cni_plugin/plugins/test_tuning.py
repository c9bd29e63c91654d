"""Tuning: from configuration to settings and traits of the pod's link."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.chained import native_pieces, read_features
from cni_plugin.errors import CniError
from cni_plugin.plugins import tuning
from cni_plugin.plugins.tuning import TuningConf, native_piece, parse, parse_native
from ipam.errors import ConfigError
from ipam.json_section import Section
from kernel.model import Link, Piece, Plan, Space, Sysctl

MACS = [f"02:00:00:00:00:0{number}" for number in range(4)]
PLAN = Plan(Space((Link("pw0"),)), Space((Link("eth0.5"),)))


@pytest.fixture(autouse=True)
def allowlist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's list, which is not there yet."""
    path = tmp_path / "allowlist.conf"
    monkeypatch.setattr(tuning, "ALLOWLIST", path)
    return path


def parsed(mac: str = "", **keys: Any) -> TuningConf:
    return parse(Section("", keys), mac)


def paths(*names: str) -> list[str]:
    piece = native_piece(TuningConf(tuple((name, "1") for name in names)), PLAN)
    return [setting.path for setting in piece.pod.sysctls] if piece else []


def test_defaults() -> None:
    assert parsed() == TuningConf()
    assert parsed(mac="", promisc=False, mtu=0, sysctl={}, args={"cni": {}}) == TuningConf()
    assert native_piece(TuningConf(), PLAN) is None


def test_every_key() -> None:
    conf = parsed(
        sysctl={"net.core.somaxconn": "1"},
        mac=MACS[0].upper(),
        mtu=1400,
        promisc=True,
        allmulti=False,
        txQLen=0,
    )
    settings = (("net.core.somaxconn", "1"),)
    assert conf == TuningConf(settings, MACS[0], 1400, True, False, 0)
    traits = Link("eth0.5", "", MACS[0], 1400, up=False, promisc=True, allmulti=False)
    share = Space(
        (Link(**{**_fields(traits), "queue_length": 0}),),
        sysctls=(Sysctl("net/core/somaxconn", "1"),),
    )
    assert native_piece(conf, PLAN) == Piece("tuning", pod=share)


def _fields(link: Link) -> dict[str, Any]:
    return {name: getattr(link, name) for name in Link.__slots__}


def test_which_value_holds() -> None:
    keys: dict[str, Any] = {"mac": MACS[0]}
    assert parsed(**keys).mac == MACS[0]
    assert parse(Section("", keys), MACS[1]).mac == MACS[1]
    keys["runtimeConfig"] = {"mac": MACS[2]}
    assert parse(Section("", keys), MACS[1]).mac == MACS[2]
    keys["args"] = {"cni": {"mac": MACS[3]}}
    assert parse(Section("", keys), MACS[1]).mac == MACS[3]
    own: dict[str, Any] = {
        "mtu": 1,
        "promisc": True,
        "allmulti": True,
        "txQLen": 1,
        "sysctl": {"net.a": "1"},
    }
    others = {"mtu": 2, "promisc": False, "allmulti": False, "txQLen": 2}
    conf = parsed(**own, args={"cni": {**others, "sysctl": {"net.a": "2", "net.b": "3"}}})
    assert conf == TuningConf((("net.a", "2"), ("net.b", "3")), "", 2, False, False, 2)
    assert parsed(args={"cni": {"sysctl": {"net.a": "1"}}}).settings == (("net.a", "1"),)


@pytest.mark.parametrize("mac", ["02-00-00-00-00-01", "0200.0000.0001", "02:00:00:00:00:01"])
def test_spellings_of_a_mac(mac: str) -> None:
    assert parsed(mac=mac).mac == MACS[1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mac": "02:00"}, "mac is '02:00', must be a MAC address"),
        ({"args": {"cni": {"mac": "x"}}}, "args.cni.mac is 'x'"),
        ({"mtu": "1400"}, "mtu is '1400'"),
        ({"mtu": -1}, "mtu is -1"),
        ({"txQLen": -1}, "txQLen is -1"),
        ({"promisc": 1}, "promisc is 1"),
        ({"allmulti": "on"}, "allmulti is 'on'"),
        ({"sysctl": []}, "sysctl is"),
        ({"sysctl": {"net.a": 1}}, "sysctl.net.a is 1, must be a string of one line"),
        ({"sysctl": {"net.a": None}}, "sysctl.net.a is None"),
        ({"sysctl": {"net.a": "1\n2"}}, "must be a string of one line"),
        ({"sysctl": {"net.a": "1\0"}}, "must be a string of one line"),
        ({"sysctl": {"kernel.hostname": "x"}}, "sysctl: 'kernel.hostname' is no setting below net"),
        ({"sysctl": {"net": "x"}}, "no setting below net"),
        ({"sysctl": {"": "x"}}, "no setting below net"),
        ({"sysctl": {"network.a": "x"}}, "no setting below net"),
        ({"sysctl": {"IFNAME.a": "x"}}, "no setting below net"),
        ({"sysctl": {"net.a\n": "x"}}, "no setting below net"),
        ({"sysctl": {"net.a\0": "x"}}, "no setting below net"),
        ({"sysctl": {"net." + "a" * 260: "x"}}, "no setting below net"),
        ({"sysctl": {"net.a.b": "1", "net/a/b": "1"}}, "'net.a.b' is there twice"),
        ({"args": {"cni": {"sysctl": {"kernel.a": "x"}}}}, "args.cni.sysctl: 'kernel.a'"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(Section("", keys))


def test_names_of_settings() -> None:
    assert paths("net.ipv4.conf.IFNAME.log_martians") == ["net/ipv4/conf/eth0.5/log_martians"]
    assert paths("net/ipv4/conf/IFNAME/rp_filter") == ["net/ipv4/conf/eth0.5/rp_filter"]
    assert paths("net.IFNAME.IFNAME") == ["net/eth0.5/IFNAME"]
    assert paths("/net//ipv4/../ip_forward") == ["net/ipv4/ip_forward"]


NAMES = st.text(st.sampled_from("net./IFAM0-"), max_size=20)


@given(st.dictionaries(NAMES | st.text(max_size=12), st.text(max_size=6), max_size=3))
def test_no_name_leads_out_of_net(settings: dict[str, str]) -> None:
    """Any configuration is refused, or its settings are below /proc/sys/net."""
    try:
        conf = parsed(sysctl=settings)
    except ConfigError:
        return
    found = paths(*(name for name, _value in conf.settings))
    assert len(found) == len(settings) == len(set(found))
    for path in found:
        assert path.startswith("net/")
        assert not {"", ".", ".."} & set(path.split("/"))
        assert "\0" not in path
        assert path.isascii()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    (
                        "sysctl",
                        "mac",
                        "mtu",
                        "promisc",
                        "allmulti",
                        "txQLen",
                        "args",
                        "cni",
                        "net.a",
                    )
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ).filter(lambda value: isinstance(value, dict))
)
def test_any_configuration(raw: Any) -> None:
    """It is an error that names its place, or it is read; a native one leaves MAC and MTU."""
    try:
        conf = parse(Section("", raw))
    except ConfigError:
        return
    native = parse_native(Section("", raw))
    assert (native.mac, native.mtu) == ("", 0)
    assert (native.settings, native.promisc) == (conf.settings, conf.promisc)
    assert (native.allmulti, native.queue_length) == (conf.allmulti, conf.queue_length)


@pytest.mark.parametrize(
    ("raw", "asked"),
    [
        ({}, False),
        ({"mtu": 1400, "mac": MACS[0], "promiscMode": True}, False),
        ({"sysctl": {}}, True),
        ({"TXQLEN": 5}, True),
        ({"args": {"cni": {"allmulti": True}}}, True),
    ],
)
def test_what_asks_for_it_natively(raw: dict[str, Any], asked: bool) -> None:
    assert ("tuning" in read_features(Section("", raw))) == asked


def test_a_native_piece() -> None:
    features = read_features(Section("", {"sysctl": {}, "mtu": 1400, "mac": MACS[0]}))
    assert native_pieces(features, PLAN) == ()
    features = read_features(Section("", {"TXQLEN": 5, "mtu": 1400, "mac": MACS[0]}))
    [piece] = native_pieces(features, PLAN)
    [link] = piece.pod.links
    assert (link.name, link.queue_length, link.mtu, link.mac) == ("eth0.5", 5, None, None)


def test_what_the_node_allows(allowlist: Path) -> None:
    allowlist.write_text("\n  ^net.ipv4.conf.IFNAME.[a-z_]+$ \n\n(?i)SOMAX\n")
    allowed = ["net.ipv4.conf.IFNAME.rp_filter", "net.core.somaxconn", "net/ipv4/conf/IFNAME/a"]
    assert len(paths(*allowed)) == 3
    for name in ("net.ipv4.conf.eth0.rp_filter", "net.ipv4.conf.IFNAME.a1", "net.ipv4.ip_forward"):
        with pytest.raises(CniError, match=f"'{name}' is not allowed") as caught:
            paths(allowed[0], name)
        assert caught.value.code == 7
    assert native_piece(TuningConf(promisc=True), PLAN)


@pytest.mark.parametrize("text", ["(", "[[:alpha:]]", r"\pL", r"a\z", "(?U)a", r"\Qa\E", "a**"])
def test_patterns_that_python_reads_otherwise(allowlist: Path, text: str) -> None:
    allowlist.write_text(f".*\n{text}\n")
    with pytest.raises(CniError, match="is no regular expression") as caught:
        paths("net.a")
    assert caught.value.code == 7


def test_a_list_that_cannot_be_read(allowlist: Path) -> None:
    allowlist.mkdir()
    with pytest.raises(CniError, match="cannot be read") as caught:
        paths("net.a")
    assert caught.value.code == 5
    allowlist.rmdir()
    allowlist.write_bytes(b"\xff")
    with pytest.raises(CniError, match="cannot be read"):
        paths("net.a")
