"""The CNI protocol: request, configuration, plan, verbs, result.

`handle` is the one way in, for the executable and for the daemon alike.
"""
