"""Network configurations, by mode and address families."""

from typing import Any

from tests.pytest_netns.underlay import Family

BRIDGE = "pwbr0"
SUBNETS: dict[Family, str] = {4: "10.77.0.0/24", 6: "fd00:77::/64"}
GATEWAYS: dict[Family, str] = {4: "10.77.0.1", 6: "fd00:77::1"}
DEFAULT_ROUTES: dict[Family, str] = {4: "0.0.0.0/0", 6: "::/0"}

MODES = ("bridge", "ptp")
FAMILIES: dict[str, tuple[Family, ...]] = {"v4": (4,), "v6": (6,), "dual": (4, 6)}

Conf = dict[str, Any]


def ipam(*families: Family, **keys: Any) -> Conf:
    """The `ipam` section with a range and a default route of each family."""
    return {
        "ranges": [[{"subnet": SUBNETS[family]}] for family in families],
        "routes": [{"dst": DEFAULT_ROUTES[family]} for family in families],
        **keys,
    }


def netconf(mode: str, families: tuple[Family, ...] = (4,), **keys: Any) -> Conf:
    """A configuration of podwire itself; `keys` are added, or replace."""
    conf: Conf = {
        "cniVersion": "1.1.0",
        "name": "robust",
        "type": "podwire",
        "mode": mode,
        "ipam": ipam(*families),
    }
    if mode == "bridge":
        conf |= {"bridge": BRIDGE, "isGateway": True}
    return conf | keys
