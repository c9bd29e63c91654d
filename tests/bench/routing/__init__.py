"""The routing half: nodes in namespaces, a daemon (`podwired run`) on each.

Peers that only stand in the list of nodes are like any other to the daemon: what it does for them
is done in its own kernel.  Times are those of CLOCK_MONOTONIC, which all processes share; kernel
changes are stamped by a listener of their notifications as soon as it has read them.
"""
