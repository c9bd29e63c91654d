"""IP address management: ranges, the allocator, the store, and the command for people."""

import os
from pathlib import Path

ROOTLESS_DATA_DIR = "/var/lib/cni/podwire"
"""The folder of podwire.db for those who are root of a user namespace alone.

Rootless podman and nerdctl make /var/lib/cni private to it.
"""
HOST_LOCAL_DATA_DIR = "/var/lib/cni/networks"
"""Where the reference plugin `host-local` keeps a folder for each network, by default."""
KINDNET_DATA_DIR = "/run/cni-ipam-state"
"""The same on nodes of kind (kind, images/kindnetd/cmd/kindnetd/cni.go)."""
_INITIAL = ["0", "0", "4294967295"]


def default_data_dir(
    folder: str = "/var/lib/podwire", uid_map: Path = Path("/proc/self/uid_map")
) -> str:
    """The folder, or the rootless one in a user namespace whose root cannot write there.

    On a node that is in a user namespace as a whole (rootless kind) plugin, daemon and podwirectl
    all can, and agree.
    """
    try:
        mapping = uid_map.read_text().split()
    except OSError:
        mapping = _INITIAL
    place = folder if os.path.exists(folder) else os.path.dirname(folder)
    if mapping in ([], _INITIAL) or os.access(place, os.W_OK, effective_ids=True):
        return folder
    return ROOTLESS_DATA_DIR


DEFAULT_DATA_DIR = default_data_dir()
"""The folder of podwire.db."""
