"""`firewall`: pods' packets pass the filters of other programs, and ingress policies."""
