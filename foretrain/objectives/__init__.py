"""Objectives: one file per way of turning a batch into losses."""
