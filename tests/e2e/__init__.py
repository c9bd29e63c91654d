"""podwire on a real cluster, whose nodes are namespaces here: `make e2e KUBE_BIN=DIR`."""
