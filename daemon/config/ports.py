"""The UDP ports of podwired.yaml together: the overlay's is the kernel's own on every address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.config.yaml import Fault, Item

if TYPE_CHECKING:
    from daemon.config.schema import Settings

_OVERLAYS = frozenset({"vxlan", "hybrid"})


def check_ports(settings: Settings, root: Item) -> None:
    """Raises Fault where probes and the overlay would have one port."""
    health, vxlan = settings.health, settings.vxlan
    if health is None or settings.backend not in _OVERLAYS or health.port != vxlan.port:
        return
    item, other = _find(root, "health"), f"vxlan.port ({vxlan.port})"
    if item is None:
        item, other = _find(root, "vxlan"), f"health.port ({health.port})"
    raise Fault(item or root, f"must be another port than {other}", shown=item is not None)


def _find(root: Item, section: str) -> Item | None:
    content = root.content
    found = content.get(section) if isinstance(content, dict) else None
    keys = found.content if found else None
    port = keys.get("port") if isinstance(keys, dict) else None
    return port if port and port.content is not None else None
