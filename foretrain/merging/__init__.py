"""Merging: what is made of several checkpoints or runs after training, and how that is judged."""
