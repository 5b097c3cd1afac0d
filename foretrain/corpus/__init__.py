"""Corpus: text before tokens: where documents come from, how they are split, and what they must not overlap with."""
