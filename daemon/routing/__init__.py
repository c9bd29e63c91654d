"""Routes to the pods of other nodes: desired state from the cluster and the host, reconciled
with the kernel.
"""
