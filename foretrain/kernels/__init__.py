"""Faster forms of what a training step spends its time in; each equals the plain form it stands for."""
