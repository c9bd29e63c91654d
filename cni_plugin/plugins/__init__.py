"""Features that the reference plugins have as plugins of their own.

Each module reads its part of a configuration and computes its piece of an attachment's plan; the
verbs know nothing of them.
"""
