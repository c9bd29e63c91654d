"""Sources of the cluster's nodes, one module each; clients of clusters are imported here alone."""
