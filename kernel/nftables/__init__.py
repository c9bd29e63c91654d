"""podwire's nftables tables."""
