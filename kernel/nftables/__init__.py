"""podwire's nftables tables as values: `ruleset` has all of them, each feature its part."""
