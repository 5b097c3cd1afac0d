"""Tokens: tokenizers, shards on disk, and the stream of training batches."""
