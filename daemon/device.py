"""The VXLAN device of the plan, kept as it should be; devices of earlier settings go."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.backends import DEVICE_ALIAS
from daemon.desired import Desired
from daemon.settings import Settings
from kernel.ethtool import ensure_offload, offload_trouble
from kernel.model import Link
from kernel.netlink import Netlink
from kernel.vxlan import ensure_vxlan, remove_vxlan


class Device:
    """Keeps one device. index: 0 while there is none. warning: why its offload is off."""

    def __init__(self, settings: Settings) -> None:
        self.index = 0
        self.warning = ""
        self._settings = settings

    def ensure(self, nl: Netlink, desired: Desired, links: Iterable[Link]) -> tuple[str, ...]:
        """Make or mend it; what was wrong, in words. Raises KernelError."""
        if desired.device is None:
            self.index = 0
            return ()
        done = ensure_vxlan(nl, desired.device, desired.device_addresses)
        self.index = done.link.index
        return (*done.faults, *self._ensure_offload(desired, links))

    def _ensure_offload(self, desired: Desired, links: Iterable[Link]) -> tuple[str, ...]:
        mode = self._settings.vxlan.checksum_offload
        below = {desired.uplink, *(k.name for k in links if _is_port_of(k, desired.uplink))}
        self.warning = offload_trouble(sorted(below)) if mode == "auto" else ""
        was = ensure_offload(self._settings.vxlan.device, mode, self.warning)
        return () if was is None else (f"its checksum offload was {'on' if was else 'off'}",)

    def remove_others(self, nl: Netlink, desired: Desired, links: Iterable[Link]) -> list[str]:
        """Remove podwire's devices that the plan does not name; their names."""
        wanted = desired.device.name if desired.device else ""
        old = [k.name for k in links if k.alias == DEVICE_ALIAS and k.name != wanted]
        return [name for name in old if remove_vxlan(nl, name)]


def _is_port_of(link: Link, uplink: str) -> bool:
    return link.port is not None and link.port.bridge == uplink


def tell_device(desired: Desired) -> str:
    """The device as planned, in a few words."""
    link = desired.device
    if link is None or link.vxlan is None:
        return ""
    tunnel = link.vxlan
    return (
        f"vxlan id {tunnel.vni} port {tunnel.port} local {tunnel.local} dev {tunnel.uplink}"
        f" mac {link.mac} mtu {link.mtu}"
    )
