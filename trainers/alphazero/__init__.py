"""Self-play on games: the loop, the learner and the evaluation."""
