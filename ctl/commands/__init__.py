"""The commands of `podwirectl`, a module each: `configure` its parser, `run` it.

Only the module of the command that was asked for is imported.
"""

COMMANDS = {
    "status": "show whether this node's routing is in sync, and what is wrong",
    "history": "list every change that podwire made, or found made by other programs",
    "check-config": "check podwired.yaml and the list of nodes that it names",
    "cleanup": "remove from this node what the daemon leaves in place when it ends",
}
"""Each command and its line in the help; `check-config` is the module `check_config`."""
