"""Corpus steps: what is done to the documents of a corpus that is built, one file each."""
