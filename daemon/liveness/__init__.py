"""Whether the daemon makes progress: for systemd and a container's probes, which restart it."""
