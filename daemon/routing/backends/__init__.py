"""Back ends: how the pods of another node are reached."""
