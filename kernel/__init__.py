"""The kernel's nouns, the pure diff between two states, and the only code that touches the kernel.

Read `model` first; `apply` is where a plan becomes kernel state.  What happens once per pod or
per peer goes out as raw batched netlink (`wire`, `netlink`, `rtnl`, `nft`); what happens once per
node, and is rich in options, goes through pyroute2 (`bridge`).
"""
