"""Models: built from scratch at a named size, or loaded."""
