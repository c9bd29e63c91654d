"""Probes between the daemons: which peers are connected, and what is wrong with the others.

Others import `prober.Prober`, the running thread, and `report`, plain values. Below them, `peers`
decides what is sent and what an outcome means, without a socket; `sockets` sends and receives.
"""
