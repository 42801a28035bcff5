"""Networks and samplers that several methods share. Modules named ``*_options`` are light; the others import torch."""
