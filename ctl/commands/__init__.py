"""The commands of `podwirectl`, a module each: `configure` its parser, `run` it.

Only the module of the command that was asked for is imported.
"""
