"""The Kubernetes source: what it costs the API server, and how soon the kernel knows.

The API is kube-apiserver with etcd where KUBEBUILDER_ASSETS names their directory, else the tests'
stand-in; each row says which. It listens on the underlay, and everything else is as on a node: the
whole daemon in a namespace, or the source alone where many of them are simulated.
"""
