"""How files are read: one file per format, found by its suffix."""
