"""Forward operators with a declared pixel grid, their noise, and what a method is given."""
