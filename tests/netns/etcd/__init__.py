"""The etcd source against a real etcd, with TLS in both directions and users with passwords."""
