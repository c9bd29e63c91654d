"""DNS as a pod's resolver does it: `resolv_conf` reads its settings, `lookup` asks, `codec` has the
bytes."""
