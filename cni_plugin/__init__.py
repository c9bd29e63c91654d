"""The CNI protocol: request, configuration, plan, verbs, result.

`handle` is the only entry, for the executable and for the daemon alike.
"""
