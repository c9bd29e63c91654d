"""The node daemon: serves CNI calls that the shim hands over."""
