"""Whether the other nodes can be reached: probes between daemons, and what they tell apart."""
