"""Sets of images that need no download."""
