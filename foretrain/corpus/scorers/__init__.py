"""Scorers: what gives every document of a domain a number, one file each."""
