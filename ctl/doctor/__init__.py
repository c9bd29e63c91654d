"""What is wrong with this node, found from its kernel, its store, its journal and the daemon's
status.

`observe` reads everything once, `checks` has a module for each area with pure functions from that
to findings, `diagnose` runs them and puts the most likely cause first.
"""
