"""The kernel room against a real kernel: what leads to other nodes."""
