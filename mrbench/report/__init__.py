"""Tables and pictures made from rows alone. Nothing here imports torch."""
