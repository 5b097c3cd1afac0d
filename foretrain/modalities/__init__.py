"""What a run learns from: one file per kind of data."""
