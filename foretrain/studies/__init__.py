"""Studies: several arms at a matched budget over seeds, and the verdict."""
