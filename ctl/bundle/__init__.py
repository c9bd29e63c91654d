"""The support bundle: `parts` says what is in it, `redact` removes secrets from that."""
