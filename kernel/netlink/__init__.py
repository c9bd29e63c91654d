"""Netlink: the byte layout, the socket, and one module per rtnetlink noun."""
