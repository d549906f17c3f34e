"""Checks a corpus with the weights that its episodes name: what a net said, and what a search made of it.

Needs torch, and the weights. `selfplay.weighed.check` goes through a corpus; the others know one thing each:
`kept` finds weights by their digest, `values` recomputes what a net said of positions, `repeats` searches again,
`dialogues` recomputes the log-probabilities of tokens.
"""
