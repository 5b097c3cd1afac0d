"""Augmentations of images: whole batches at once, with parameters drawn for each row on its own."""
