"""The cluster as Kubernetes knows it: one small object for each node, watched by all daemons.

    own Node ─▶ OwnObject ─▶ NodeNetwork (own, applied)
    NodeNetworks (listed once, then watched) ─▶ ClusterView ─▶ ClaimCheck ─▶ Feed
                              Worker ─▶ Nodes (of other nodes, where a claim conflicts)

The position of the last known state has the watch's resourceVersion and the own Node's uid: with
another uid it is another cluster, or the Node was made again, and a list is needed.
"""
