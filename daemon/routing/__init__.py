"""Routes to the pods of other nodes: planned from the cluster and the host state, reconciled with
the kernel.

Others use `loop.Routing` (the daemon's thread), `counters.Counts` (the metrics), and of podwirectl
`cleanup.clean_up`, `conflicts.find_contradictions` and `backends.backend_of`.

A new cluster or host state → `planner` (`host_state`, `conflicts`, `backends`) →
Desired → `reconciler` (`sysctls`, `vxlan_device`, `peer_routes`, `nft_rules`), `conflist`,
`stale_pods`, `unwired_pods`, `capacity` → `reporter` (`authors`) → journal, log, `counters`,
status.
"""
