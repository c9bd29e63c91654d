"""Probes between the daemons: which peers answer, and what is wrong with the path to the others."""
