"""IP address management: ranges, the allocator, the store, and the command for people."""

DEFAULT_DATA_DIR = "/var/lib/podwire"
"""The folder of podwire.db."""
