"""Executors: where the jobs of a study run, one kind per file."""
