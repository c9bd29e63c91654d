"""Network policies: what they cost new and established connections, and how soon they are there."""
