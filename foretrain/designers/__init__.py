"""Designers: small networks that rewrite the task of a batch: the targets of tokens, the masks of images."""
