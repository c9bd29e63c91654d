"""How a configuration wires a pod: the mode, and the defaults that go with it."""

from __future__ import annotations

from dataclasses import dataclass

from cni_plugin.config import NetConf


@dataclass(frozen=True, slots=True)
class Shape:
    """How this configuration wires: mode, and what the drop-in names default to.

    hairpin: whether a port sends back to where a packet came from. masquerade_hairpin: whether a
    pod's connections to itself are masqueraded, for which the kernel tracks all connections.
    source_check: whether the pod is held to its addresses; mac_check: to its MAC, on a bridge.
    delegate: the IPAM plugin that gives the addresses; empty for podwire's own. native: whether it
    is podwire under its own name, with the features that are plugins of their own elsewhere.
    """

    mode: str
    hairpin: bool
    masquerade_hairpin: bool
    gateway: bool
    source_check: bool
    mac_check: bool
    delegate: str = ""
    native: bool = False


def shape_of(conf: NetConf, program: str, delegate: str = "") -> Shape:
    """The mode and its defaults. program: the name that podwire was started under.

    As `bridge` or `ptp` podwire is that plugin, with its defaults; as itself it wires routed pairs
    unless configured otherwise, lets pods reach themselves through a service, and lets them send
    from their own addresses only. Whoever translates a service's address masquerades these
    connections, too (kube-proxy, portmap); podwire does where it masquerades anyway, or is asked.
    """
    drop_in = next((name for name in (program, conf.type) if name in ("bridge", "ptp")), None)
    mode = drop_in or conf.mode or "ptp"
    gateway = conf.is_gateway or conf.is_default_gateway
    hairpin = conf.hairpin_mode
    if hairpin is None:
        hairpin = drop_in is None and not conf.promisc_mode
    asked = conf.ip_masq if conf.hairpin_mode is None else conf.hairpin_mode
    masquerade = asked and (mode == "ptp" or (hairpin and gateway))
    checked = drop_in is None if conf.source_check is None else conf.source_check
    checked = checked and conf.uses_ipam  # else its addresses are not known
    mac = checked and drop_in is None if conf.mac_spoof_check is None else conf.mac_spoof_check
    return Shape(mode, hairpin, masquerade, gateway, checked, mac, delegate, native=drop_in is None)
