"""Steering: one file per method that decides something online, each step."""
