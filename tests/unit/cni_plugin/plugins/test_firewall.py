"""The configuration of `firewall`, and its piece of a plan."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.config import parse_config
from cni_plugin.errors import CniError
from cni_plugin.plugins.firewall import (
    FirewallConf,
    parse,
    parse_native,
    plan_firewall,
)
from ipam.errors import ConfigError
from ipam.json_section import Section
from kernel.iptables import is_chain_name
from kernel.model import Acceptance
from kernel.nftables.firewall import POLICIES

ADDRESSES = (ip_address("10.0.0.2"), ip_address("fd00::2"))


def read(**keys: Any) -> FirewallConf:
    return parse(Section("", keys))


def test_defaults_are_the_references() -> None:
    assert read() == FirewallConf("", "trusted", "CNI-ADMIN", "open")
    empty = {"backend": "", "firewalldZone": "", "iptablesAdminChainName": "", "ingressPolicy": ""}
    assert read(**empty) == read()


def test_all_keys() -> None:
    conf = read(
        backend="firewalld",
        firewalldZone="public",
        iptablesAdminChainName="MINE",
        ingressPolicy="isolated",
    )
    assert conf == FirewallConf("firewalld", "public", "MINE", "isolated")
    assert read(backend="iptables").backend == "iptables"


def test_an_unknown_backend_counts_as_none() -> None:
    """As with the reference."""
    assert read(backend="nftables") == read()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "backend": st.text() | st.integers() | st.none(),
            "firewalldZone": st.text() | st.lists(st.text()),
            "iptablesAdminChainName": st.text() | st.from_regex(r"[\w -]{1,30}") | st.booleans(),
            "ingressPolicy": st.sampled_from(("", *POLICIES)) | st.text(),
        },
    )
)
def test_whatever_is_taken_can_be_written(keys: dict[str, object]) -> None:
    try:
        conf = parse(Section("", keys))
    except ConfigError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert refused.partition(" ")[0] in keys
        return
    assert is_chain_name(conf.admin_chain)
    assert conf.policy in POLICIES
    assert conf.zone
    assert "\0" not in conf.zone
    assert conf.backend in ("", "iptables", "firewalld")


def test_a_native_configuration_has_an_object() -> None:
    native = Section("", {"firewall": {"ingressPolicy": "isolated"}, "backend": "iptables"})
    assert parse_native(native) == FirewallConf(policy="isolated")
    conf = {"name": "n", "type": "podwire", "firewall": {}}
    assert parse_config(conf).features == {"firewall": FirewallConf()}
    assert parse_config({**conf, "type": "bridge"}).features == {}
    with pytest.raises(CniError, match=r"firewall\.ingressPolicy is 'closed'") as refused:
        parse_config({**conf, "firewall": {"ingressPolicy": "closed"}})
    assert refused.value.code == 7


def test_the_piece() -> None:
    piece = plan_firewall(FirewallConf(), "br0", ADDRESSES)
    assert piece.acceptance == Acceptance(ADDRESSES, "", "trusted", "CNI-ADMIN")
    assert piece.elements == ()
    same, isolated = (
        {e.set_name for e in plan_firewall(FirewallConf(policy=p), "br0", ADDRESSES).elements}
        for p in ("same-bridge", "isolated")
    )
    assert same == {"policy_links", "same_policy_link"}
    assert isolated == {"policy_links", "isolated_link"}
