"""Parametrizations: one file per choice of which numbers are trained."""
