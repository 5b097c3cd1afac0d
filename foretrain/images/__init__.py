"""Images as a corpus: items, file formats, built-in sets, splits by content, memory-mapped sets on disk."""
