"""Somebody else's games."""
