"""What the commands of `podwired` do beside running the daemon, one module each.

`cleanup` is `podwirectl`'s command, too.
"""
