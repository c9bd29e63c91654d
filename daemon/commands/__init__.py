"""The commands of `podwired`, a module each: `configure` its parser, `run` it.

Each is imported only where it is the one that was asked for.
"""
