"""Network policies, enforced on real nodes with real connections."""
