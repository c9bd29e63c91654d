"""podwire driven by real runtimes: cnitool and podman."""
