"""Training: one loop for every trainable method."""
