"""Built-in data sets of mrbench."""
