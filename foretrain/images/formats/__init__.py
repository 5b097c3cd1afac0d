"""Files of images: one file per way of storing them."""
