"""Corpus executors: where the stages of a build run, one kind per file."""
