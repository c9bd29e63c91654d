"""The etcd source: nodes of a cluster without Kubernetes, and the subnets that they lease there."""
