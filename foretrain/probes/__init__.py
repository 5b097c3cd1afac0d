"""Probes: what is measured on the model while it trains."""
