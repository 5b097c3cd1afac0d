"""Curation: raw text becomes a corpus, stage by stage, with every document that is dropped on record."""
