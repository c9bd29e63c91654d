"""CNI calls served for the shim: the socket, the processes and threads behind it, one call per
attachment at a time.
"""
