"""Built-in methods of mrbench."""
