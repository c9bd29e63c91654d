"""Nouns of the kernel's network state, their one diff, and the only code that touches the kernel.

Read `model` and `diff` first; `attach` is where a plan becomes kernel state. What happens once per
pod or per peer goes out as batched netlink of our own (`netlink`, `nftables`). A bridge is created
once per node, through pyroute2, which costs 150 ms to import and 17 MB in each process.
"""
