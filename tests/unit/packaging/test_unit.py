"""packaging/systemd: the unit asks for little, and for what the daemon needs."""

from __future__ import annotations

import re
import subprocess

from tests import ROOT

UNIT = ROOT / "packaging" / "systemd" / "podwired.service"
NEEDED = {"ProtectKernelTunables", "ProcSubset", "ProtectProc", "PrivateNetwork", "PrivateUsers"}
"""Any of these would keep the daemon from its work (the unit has the reasons)."""


def test_its_exposure_is_bounded() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"exposure level for podwired.service: ([0-9.]+)", out)
    assert found is not None, out
    assert float(found[1]) <= 3.5


def test_what_podwire_needs_is_not_taken_from_it() -> None:
    lines = [line for line in UNIT.read_text().splitlines() if line and line[0] not in "#["]
    keys = dict(line.split("=", 1) for line in lines)
    assert not NEEDED & keys.keys()
    assert {"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} <= set(keys["CapabilityBoundingSet"].split())
    assert keys["RestrictNamespaces"] == "net"
    assert set(keys["RestrictAddressFamilies"].split()) >= {"AF_UNIX", "AF_NETLINK"}
    # Debian's directory of CNI plugins, and Fedora's: podwire's executables are put back there.
    assert keys["ReadWritePaths"].split() == ["/etc/cni", "-/usr/lib/cni", "-/usr/libexec/cni"]
