"""Pods with mapped ports: one call of podwire beside the reference's chain of plugins.

Each pod has two mapped ports, masquerade and a limit of its bandwidth. After each ADD both ports
answer from outside.
"""
