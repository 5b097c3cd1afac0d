"""Orders: in which order a domain is gone through, one file each."""
