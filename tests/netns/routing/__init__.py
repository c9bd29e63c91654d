"""Several nodes as namespaces, each with a real `podwired run`."""
