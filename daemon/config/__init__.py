"""podwired.yaml: its schema, how it is loaded, and the YAML reader that names lines."""
