"""The commands of `podwirectl`, a module each: `configure` its parser, `run` it.

Only the module of the command that was asked for is imported.
"""

COMMANDS = {
    "status": "show whether this node's routing is in sync, and what is wrong",
    "pods": "list pods with their links and addresses; which pod is this link, address or MAC?",
    "doctor": "find out what is wrong, where, since when, by whom, and what to do",
    "peers": "list the other nodes, the path to each, and whether it is reached",
    "trace": "follow a packet hop by hop with real packets: where it ends, and why",
    "capture": "capture a pod's packets at all links of their way, into one pcapng file",
    "dns": "look names up as a pod's resolver would, and show which queries are in vain",
    "policy": "explain network policies: of a pod, of a connection; and find mistakes in them",
    "diff": "compare what this node should have with what its kernel has",
    "plan": "compute the prefixes that a cluster needs, or show how full the present ones are",
    "history": "list every change that podwire made, or found made by other programs",
    "support-bundle": "collect what a maintainer asks for into one file, without secrets",
    "completion": "print a script that lets a shell complete podwire's commands",
    "check-config": "check podwired.yaml and the list of nodes that it names",
    "cleanup": "remove from this node what the daemon leaves in place when it ends",
}
"""Each command and its line in the help; `check-config` is the module `check_config`."""
