"""What podwire puts on a node's disk for container runtimes, and takes off again.

`manifest` records every file that was written or set aside, before it is; `programs` are the
executables in the directories of CNI plugins, `conflists` other plugins' CNI configurations;
`install` and `uninstall` are the commands of `podwired`.
"""
