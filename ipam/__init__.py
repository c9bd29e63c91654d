"""IP address management: ranges, the allocator, the store, and the command for people."""

DEFAULT_DATA_DIR = "/var/lib/podwire"
"""The folder of podwire.db."""
HOST_LOCAL_DATA_DIR = "/var/lib/cni/networks"
"""Where the reference plugin `host-local` keeps a folder for each network, by default."""
KINDNET_DATA_DIR = "/run/cni-ipam-state"
"""The same on nodes of kind (kind, images/kindnetd/cmd/kindnetd/cni.go)."""
