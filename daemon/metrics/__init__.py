"""What the daemon counts, and how it shows that; prometheus_client is imported here alone.

`tally` and `counts` are where things are counted, and import nothing of it: only `families` says
what a count is called, and only `endpoint` serves it.
"""
