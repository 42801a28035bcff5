"""Records, readers, preparation and cache of images. Nothing here imports torch."""
