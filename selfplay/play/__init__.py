"""Self-play: many games at once, each of them a sealed episode."""
