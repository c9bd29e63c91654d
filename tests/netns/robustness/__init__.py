"""podwire under failure: broken state, kills, full disks, crowds, and real traffic throughout.

Calls go through a zygote (`zygote.py`): a warm interpreter forks for each call and runs podwire's
entry point in the node's namespaces. What is executed is what the executable executes, less the
start of Python; tests that want that too take the executable itself (`Node.cni`).
"""
