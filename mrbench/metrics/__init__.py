"""Fidelity and perceptual metrics, batched, on any device."""
