"""The operator's tool `podwirectl`: a module per command below `commands`."""
