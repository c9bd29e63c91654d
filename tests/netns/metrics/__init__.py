"""Metrics of live daemons, read by a real Prometheus, and what an operator copies for it."""
