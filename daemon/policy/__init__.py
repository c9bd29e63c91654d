"""Network policy: who may connect to this node's pods, and where these may connect to.

`controller` keeps the kernel's rules as the source's objects and the node's pods ask for; `model`
reads the objects (networking.k8s.io/v1 NetworkPolicy), `compile` makes rules of them.
"""
