"""IP address management: ranges, the allocator, the store, and the command for people."""
