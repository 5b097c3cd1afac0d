"""Optimizers: how gradients move the parameters."""
